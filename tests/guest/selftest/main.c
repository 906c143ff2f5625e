/* SPDX-License-Identifier: Apache-2.0
 *
 * The self-test that runs in a guest's userland, and on the host for comparison: "hash" lines must
 * be the same on both, "ok" lines must be ok in the guest. With an argument, only what has hashes:
 * a host may be a guest itself, of a VMM that gets INT1 and debug registers wrong.
 */
#include "rt.h"

int main(int args);
unsigned tests_done(void);
unsigned tests_failed(void);

int main(int args)
{
    say("# selftest, %s", sizeof(word) == 8 ? "64-bit" : "32-bit");
    test_integer();
    test_x87();
    test_simd();
    if (args < 2) {
        test_signals();
        test_traps();
        test_ptrace();
        test_time();
        test_threads();
        test_ldt();
        test_vm86();
    }
    say("1..%u", tests_done());
    say("selftest done: %u tests, %u failed", tests_done(), tests_failed());
    return tests_failed() != 0;
}
