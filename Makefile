# SPDX-License-Identifier: Apache-2.0
# sosia: build, test, bench. Everything is built out of tree into $(BUILD).
#
#   make                 build/sosia and build/libsosia.a
#   make demo            install what is missing, build, boot stock Debian to a shell
#   make check           install what is missing, build, run the tests (check-long: the long ones too)
#   make lint bench fuzz install clean
#
# One static library per directory of src/, in the layers of docs/design.md. A test program
# tests/<dir>/test_x.c links with every library; `make $(BUILD)/tests/<dir>/test_x` builds just what it needs.
# Variables: BUILD, CC, OPT, SANITIZE=address,undefined, WERROR=0, DESTDIR, PREFIX.

BUILD    ?= build
CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
OPT      ?= -O2 -g
PREFIX   ?= /usr/local
SANITIZE ?=
WERROR   ?= 1
PYTHON   ?= python3

GEN      := $(BUILD)/gen
CPPFLAGS += -D_GNU_SOURCE -Isrc -Iinclude -I$(GEN)
CFLAGS   += -std=gnu17 $(OPT) -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wvla -pthread \
            -fno-strict-aliasing -fno-common $(if $(filter 1,$(WERROR)),-Werror) \
            $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
LDLIBS   += -pthread -lm
LDFLAGS  += -Wl,--build-id $(if $(SANITIZE),-fsanitize=$(SANITIZE))

# Top of the layers first, as the linker wants them.
LAYERS := cli api migrate snapshot machine engine/bt engine/kvm engine/interp engine boot \
          dev/vmware dev/virtio dev/pc cpu bus display net block mem state base
MAIN   := src/cli/main.c

# Reached from translated code while the guest's vector registers are on the host's (bt's TLB fill).
GENERAL_REGS := engine/bt/helper engine/bt/cache engine/bt/mode cpu/tlb cpu/mmu cpu/debug cpu/stop mem/gmem mem/access
$(foreach f,$(GENERAL_REGS),$(eval CFLAGS_$(subst /,_,$(f)) := -mgeneral-regs-only))

# Optional libraries: with one the file that uses it is built, without it the file that says so.
have = $(shell pkg-config --exists $(1) 2>/dev/null && echo yes)
# libslirp's own .pc file asks for glib's headers, which its header does not need.
HAVE_SLIRP := $(shell printf '\043include <slirp/libslirp.h>\n' | $(CC) -E -x c - >/dev/null 2>&1 && echo yes)
LEFT_OUT   := $(if $(HAVE_SLIRP),src/net/user_none.c,src/net/user.c)
LDLIBS     += $(if $(HAVE_SLIRP),-lslirp)
# $(call optional,PACKAGE,MACRO): code that is in a file under #ifdef MACRO.
optional = $(if $(call have,$(1)),$(eval CPPFLAGS += -D$(2))$(eval LDLIBS += $(shell pkg-config --libs $(1))))
$(call optional,zlib,HAVE_ZLIB)
$(call optional,libzstd,HAVE_ZSTD)
$(call optional,gnutls,HAVE_GNUTLS)
$(call optional,libnbd,HAVE_LIBNBD)
$(call optional,liburing,HAVE_LIBURING)
$(call optional,libvncserver,HAVE_LIBVNCSERVER)
LEFT_OUT += $(if $(call have,libvncserver),src/display/vnc_none.c,src/display/vnc.c)
LEFT_OUT += $(if $(call have,libnbd),,src/block/nbd.c)
# The control socket, and the commands that go over it, are in JSON.
$(call optional,jansson,HAVE_JANSSON)
API_FILES := $(addprefix src/api/,client.c cmd_%.c commands.c events.c frame.c names.c qmp.c server.c) src/cli/control.c src/cli/control_migrate.c
NO_API    := src/api/none.c src/cli/control_none.c
API_TESTS := tests/api/test_qmp.c tests/api/test_control.c fuzz/fuzz_qmp.c
LEFT_OUT  += $(if $(call have,jansson),$(NO_API),$(API_TESTS) $(filter $(API_FILES),$(wildcard src/api/*.c src/cli/*.c)))

srcs_of = $(filter-out $(MAIN) $(LEFT_OUT),$(sort $(wildcard src/$(1)/*.c src/$(1)/*.S)))
objs_of = $(patsubst src/%,$(BUILD)/obj/%.o,$(call srcs_of,$(1))) $(if $(filter cpu,$(1)),$(GEN_OBJS))

GEN_SRCS := $(GEN)/cpu/insn_tables.c
GEN_OBJS := $(GEN)/cpu/insn_tables.o
LIBS     := $(foreach l,$(LAYERS),$(if $(strip $(call objs_of,$(l))),$(BUILD)/lib/$(subst /,_,$(l)).a))

.PHONY: all
all: $(BUILD)/sosia $(BUILD)/libsosia.a

# -- Generated decoder --------------------------------------------------------------------------
$(GEN)/cpu/.stamp: tools/geninsn src/cpu/insns.txt
	@mkdir -p $(GEN)/cpu
	$(PYTHON) tools/geninsn src/cpu/insns.txt $(GEN)/cpu
	@touch $@
$(GEN)/cpu/insn_tables.c $(GEN)/cpu/insn_ops.h: $(GEN)/cpu/.stamp ;
$(GEN_OBJS): $(GEN_SRCS)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MT $@ -c -o $@ $<

# -- Objects and libraries ----------------------------------------------------------------------
$(BUILD)/obj/%.c.o: src/%.c | $(GEN)/cpu/.stamp
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(subst /,_,$*)) -MMD -MP -MT $@ -c -o $@ $<
$(BUILD)/obj/%.S.o: src/%.S | $(GEN)/cpu/.stamp
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MT $@ -c -o $@ $<

define layer_rule
$(BUILD)/lib/$(subst /,_,$(1)).a: $(call objs_of,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	$(AR) rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(if $(strip $(call objs_of,$(l))),$(eval $(call layer_rule,$(l)))))

$(BUILD)/libsosia.a: $(foreach l,$(filter-out cli,$(LAYERS)),$(call objs_of,$(l)))
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/sosia: $(patsubst src/%,$(BUILD)/obj/%.o,$(MAIN)) $(LIBS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDLIBS)

# -- Tests ----------------------------------------------------------------------------------------
# A test names the layers it links in its first lines: "// LAYERS: bus mem state base"
# (default: all of them). tests/support/*.c is a library, too, so that a test needs only the layers
# of what it uses of it.
TEST_SRCS    := $(filter-out $(LEFT_OUT),$(sort $(wildcard tests/*/test_*.c)))
TEST_BINS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRCS))
SUPPORT_OBJS := $(patsubst tests/support/%.c,$(BUILD)/tests/support/%.o,$(sort $(wildcard tests/support/*.c)))

SUPPORT_LIB  := $(BUILD)/tests/support.a

$(SUPPORT_LIB): $(SUPPORT_OBJS)
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/tests/support/%.o: tests/support/%.c | $(GEN)/cpu/.stamp
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP -MT $@ -c -o $@ $<

# Only a test that includes more of tests/support than test.h links with it.
test_support = $(if $(shell grep '^.include "support/' $(1) | grep -v '/test\.h"'),$(SUPPORT_LIB))
test_layers = $(or $(shell sed -n 's,^// LAYERS: *,,p' $(1)),$(filter-out cli,$(LAYERS)))
define test_rule
$(patsubst tests/%.c,$(BUILD)/tests/%,$(1)): $(1) $(foreach l,$(call test_layers,$(1)),$(filter %/$(subst /,_,$(l)).a,$(LIBS))) $(call test_support,$(1)) | $(GEN)/cpu/.stamp
	@mkdir -p $$(@D)
	$$(CC) $$(CPPFLAGS) -Itests $$(CFLAGS) -MMD -MP -MT $$@ -MF $$@.d $$(LDFLAGS) -o $$@ $$< -Wl,--start-group $(call test_support,$(1)) $(foreach l,$(call test_layers,$(1)),$(filter %/$(subst /,_,$(l)).a,$(LIBS))) -Wl,--end-group -lcmocka $$(LDLIBS)
endef
$(foreach t,$(TEST_SRCS),$(eval $(call test_rule,$(t))))

.PHONY: tests
tests: $(TEST_BINS)

.PHONY: clean
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name bench -prune -o -type f -name '*.d' -print 2>/dev/null)
-include tools/targets.mk
