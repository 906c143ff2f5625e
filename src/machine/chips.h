/* SPDX-License-Identifier: Apache-2.0
 *
 * Interrupt controllers of the engine's own (engine.h, engine_chips). Either they work or the
 * machine's do: theirs from a processor's first entry on, the machine's again as soon as somebody
 * has all processors stand and holds the machine lock. So whoever looks at the machine's chips,
 * saves, loads or resets them finds them whole, and no snapshot tells which engine it is of.
 */
#ifndef SOSIA_MACHINE_CHIPS_H
#define SOSIA_MACHINE_CHIPS_H

#include "dev/pc/lapic.h"
#include "machine/machine.h"

/* [vcpu], machine lock not held: guest code is about to run. */
void machine_give_chips(struct machine *m);
/* All processors stand, machine lock held. */
void machine_take_chips(struct machine *m);

/* [vcpu] The processor's local APIC for a moment, for what the engine itself did not do; takes and
 * releases the machine lock. An interrupt that comes at that moment to an APIC of the engine's can
 * be lost: instructions that the kernel's emulator lacks do not access it. */
struct lapic *machine_borrow_lapic(struct machine *m, struct cpu *cpu);
void machine_return_lapic(struct machine *m, struct cpu *cpu);

/* Where the 8259s' interrupt goes. */
void machine_chips_intr(struct machine *m, int level);

#endif
