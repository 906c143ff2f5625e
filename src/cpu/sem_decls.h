/* SPDX-License-Identifier: Apache-2.0 -- prototypes of every helper written in C */
#ifndef SOSIA_CPU_SEM_DECLS_H
#define SOSIA_CPU_SEM_DECLS_H

#include "cpu/sem.h"

#define SEM_DECL(op, helper) sem_fn sem_##helper;
INSN_OP_LIST_C(SEM_DECL)
#undef SEM_DECL

#endif
