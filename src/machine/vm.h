/* SPDX-License-Identifier: Apache-2.0
 *
 * What is behind a handle of the public interface, for the layers above that share it (api).
 */
#ifndef SOSIA_MACHINE_VM_H
#define SOSIA_MACHINE_VM_H

struct machine;
struct sosia_vm;

struct machine *sosia_vm_machine(struct sosia_vm *vm);

#endif
