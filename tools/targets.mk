# SPDX-License-Identifier: Apache-2.0
# Everything but compiling: tests, lint, fuzzing, installation. Included by the Makefile.

TEST_SECONDS ?= 900
LONG_SECONDS ?= 7200
FUZZ_SECONDS ?= 60
TEST_JOBS    ?= 2

# What tests find in their environment: the binary, where built things are, where sources are.
export SOSIA := $(abspath $(BUILD))/sosia
export TOP   := $(CURDIR)
TEST_ENV     := BUILD=$(abspath $(BUILD))

.PHONY: deps
deps:
	@tools/install-deps

# -- Tests --------------------------------------------------------------------------------------
# tests/*/test_* run in `make check`, tests/*/long_* in `make check-long`, too. Programs are built,
# scripts (sh, python) run as they are; both speak TAP. TESTS="dir/ dir/test_x" selects.
LONG_SRCS := $(sort $(wildcard tests/*/long_*.c))
LONG_BINS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(LONG_SRCS))
$(foreach t,$(LONG_SRCS),$(eval $(call test_rule,$(t))))

TESTS        ?=
picked        = $(strip $(foreach w,$(TESTS),$(findstring tests/$(w),$(1))))
selected      = $(if $(TESTS),$(foreach t,$(1),$(if $(call picked,$(t)),$(t))),$(1))
TEST_SCRIPTS := $(sort $(wildcard tests/*/test_*.sh tests/*/test_*.py))
LONG_SCRIPTS := $(sort $(wildcard tests/*/long_*.sh tests/*/long_*.py))

.PHONY: check check-long
check: deps
	+@$(MAKE) --no-print-directory all tests
	+@$(TEST_ENV) tools/runtests -j $(TEST_JOBS) -t $(TEST_SECONDS) \
	    $(call selected,$(TEST_BINS) $(TEST_SCRIPTS))
check-long: deps
	+@$(MAKE) --no-print-directory all tests $(LONG_BINS)
	+@$(TEST_ENV) tools/runtests -j $(TEST_JOBS) -t $(LONG_SECONDS) \
	    $(call selected,$(TEST_BINS) $(TEST_SCRIPTS) $(LONG_BINS) $(LONG_SCRIPTS))

# The unit tests alone, without building what they do not link: while working on a layer, and for the
# sanitizer run of .ci/run.
.PHONY: check-units
check-units: $(call selected,$(TEST_BINS))
	+@$(TEST_ENV) tools/runtests -j $(TEST_JOBS) -t $(TEST_SECONDS) $^

# -- Lint ---------------------------------------------------------------------------------------
C_SOURCES      := $(sort $(shell find src include tests fuzz -name '*.[chS]'))
# Directories that clang-format has been over; a new one joins when its files do.
FORMATTED_DIRS := src/base src/state src/mem src/block src/bus tests/base tests/state tests/mem \
                  tests/block tests/bus
FORMATTED      := $(foreach d,$(FORMATTED_DIRS),$(wildcard $(d)/*.[ch])) tests/support/test.h \
                  fuzz/fuzz_state.c

.PHONY: lint format
lint: $(GEN)/cpu/.stamp
	@status=0; \
	tools/checkincludes || status=1; \
	tools/checkstyle $(C_SOURCES) || status=1; \
	tools/lint-headers $(CC) $(CPPFLAGS) $(CFLAGS) || status=1; \
	tools/lint-format $(FORMATTED) || status=1; \
	[ $$status -ne 0 ] || echo "lint: clean"; exit $$status
format:
	clang-format -i $(FORMATTED)

# -- Fuzzing ------------------------------------------------------------------------------------
# fuzz/fuzz_x.c is a libFuzzer target; "// LAYERS:" as in tests. Objects of their own, by clang, with
# the sanitizers. Seeds: fuzz/seeds/fuzz_x/. FUZZ=x selects one.
FUZZ_SRCS  := $(filter-out $(LEFT_OUT),$(sort $(wildcard fuzz/fuzz_$(or $(FUZZ),*).c)))
FUZZ_BUILD := $(BUILD)/fuzz
FUZZ_BINS  := $(patsubst fuzz/%.c,$(BUILD)/bin/%,$(FUZZ_SRCS))

define fuzz_rule
$(patsubst fuzz/%.c,$(BUILD)/bin/%,$(1)): $(1) $(foreach l,$(call test_layers,$(1)),$(filter %/$(subst /,_,$(l)).a,$(LIBS))) $(call test_support,$(1)) | $(GEN)/cpu/.stamp
	@mkdir -p $$(@D)
	$$(CC) $$(CPPFLAGS) -Itests $$(CFLAGS) -fsanitize=fuzzer -MMD -MP -MT $$@ -MF $$@.d -o $$@ $$< -Wl,--start-group $(call test_support,$(1)) $(foreach l,$(call test_layers,$(1)),$(filter %/$(subst /,_,$(l)).a,$(LIBS))) -Wl,--end-group $$(LDLIBS)
endef
$(foreach t,$(FUZZ_SRCS),$(eval $(call fuzz_rule,$(t))))

.PHONY: fuzz fuzz-build fuzz-bins
fuzz-bins: $(FUZZ_BINS)
fuzz-build:
	+@$(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) CC=clang OPT="-O1 -g" \
	    SANITIZE=fuzzer-no-link,address,undefined fuzz-bins
fuzz: fuzz-build
	@tools/runfuzz $(FUZZ_BUILD) $(FUZZ_SECONDS) $(patsubst fuzz/%.c,%,$(FUZZ_SRCS))

# -- Demonstration, figures ---------------------------------------------------------------------
.PHONY: demo bench
demo: deps
	+@$(MAKE) --no-print-directory all
	@$(TEST_ENV) tools/demo
bench: all
	@$(TEST_ENV) bench/run

# -- Installation -------------------------------------------------------------------------------
VERSION := $(or $(shell sed -n 's/^\#define SOSIA_VERSION_STRING *"\(.*\)"/\1/p' include/sosia.h 2>/dev/null),0.1)
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions

$(BUILD)/sosia.pc: tools/targets.mk
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCDIR)' '' \
	    'Name: sosia' 'Description: x86 virtual machine monitor as a library' \
	    'Version: $(VERSION)' 'Libs: -L$${libdir} -lsosia' 'Libs.private: $(LDLIBS)' \
	    'Cflags: -I$${includedir}' > $@

.PHONY: install uninstall
install: all $(BUILD)/sosia.pc
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR) \
	    $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(COMPDIR)
	install -m 755 $(BUILD)/sosia $(DESTDIR)$(BINDIR)/sosia
	install -m 644 $(BUILD)/libsosia.a $(DESTDIR)$(LIBDIR)/libsosia.a
	install -m 644 $(BUILD)/sosia.pc $(DESTDIR)$(LIBDIR)/pkgconfig/sosia.pc
	install -m 644 include/sosia.h $(DESTDIR)$(INCDIR)/sosia.h
	install -m 644 docs/sosia.1 $(DESTDIR)$(MANDIR)/man1/sosia.1
	install -m 644 tools/sosia.bash-completion $(DESTDIR)$(COMPDIR)/sosia
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/sosia $(DESTDIR)$(LIBDIR)/libsosia.a \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/sosia.pc $(DESTDIR)$(INCDIR)/sosia.h \
	    $(DESTDIR)$(MANDIR)/man1/sosia.1 $(DESTDIR)$(COMPDIR)/sosia
