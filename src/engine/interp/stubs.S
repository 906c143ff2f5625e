/* SPDX-License-Identifier: Apache-2.0
 *
 * From a handler to slow.c with every register but rax kept, on an aligned stack (OP_STUB). The
 * handlers hold nothing in vector registers.
 */
        .text

        .macro  STUB name, target
        .globl  \name
        .hidden \name
        .type   \name, @function
        .p2align 4
\name:
        push    %rbp
        mov     %rsp, %rbp
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        and     $-16, %rsp
        .endm

        .macro  DONE name, target
        call    \target
        lea     -64(%rbp), %rsp
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rbp
        ret
        .size   \name, . - \name
        .endm

        .macro  SIX name, target
        STUB    \name
        DONE    \name, \target
        .endm

/* A seventh argument: the size of the access. */
        .macro  SEVEN name, target, size
        STUB    \name
        sub     $8, %rsp
        push    $\size
        DONE    \name, \target
        .endm

        SIX     interp_stub_read, op_read_slow
        SIX     interp_stub_rmw, op_rmw_slow
        SIX     interp_stub_target, op_target_slow
        SIX     interp_stub_linear, op_linear_slow
        SEVEN   interp_stub_write_1, op_write_slow, 1
        SEVEN   interp_stub_write_2, op_write_slow, 2
        SEVEN   interp_stub_write_4, op_write_slow, 4
        SEVEN   interp_stub_write_8, op_write_slow, 8
        SEVEN   interp_stub_push_4, op_push_slow, 4
        SEVEN   interp_stub_push_8, op_push_slow, 8

        .section .note.GNU-stack, "", @progbits
