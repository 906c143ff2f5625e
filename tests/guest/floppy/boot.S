# SPDX-License-Identifier: Apache-2.0
#
# Boot sector of a FAT12 floppy (the parameter block is mformat's): looks for LOADER.BIN in the root
# directory, follows its clusters to 0x10000 and goes there.
        .code16
        .globl  _start
        .set    SECTORS_PER_CLUSTER, 0x7c0d
        .set    RESERVED, 0x7c0e
        .set    FATS, 0x7c10
        .set    ROOT_ENTRIES, 0x7c11
        .set    SECTORS_PER_FAT, 0x7c16
        .set    SECTORS_PER_TRACK, 0x7c18
        .set    HEADS, 0x7c1a
        .set    FAT, 0x8000
        .set    ROOT, 0xa000

_start: jmp     start
        .org    62
start:  xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x7c00, %sp
        cld
        mov     %dl, drive

        mov     RESERVED, %ax
        mov     $FAT, %bx
        mov     SECTORS_PER_FAT, %cx
1:      call    read
        add     $512, %bx
        inc     %ax
        loop    1b

        movzbw  FATS, %ax
        mulw    SECTORS_PER_FAT
        add     RESERVED, %ax
        mov     ROOT_ENTRIES, %cx
        shr     $4, %cx
        mov     %ax, %bp
        add     %cx, %bp                # where cluster 2 is
2:      mov     $ROOT, %bx
        call    read
        mov     %bx, %di
3:      push    %cx
        push    %di
        mov     $name, %si
        mov     $11, %cx
        repe    cmpsb
        pop     %di
        pop     %cx
        je      found
        add     $32, %di
        cmp     $ROOT + 512, %di
        jb      3b
        inc     %ax
        loop    2b
        jmp     failed

found:  mov     26(%di), %si
        mov     $0x1000, %ax
        mov     %ax, %es
        xor     %bx, %bx
4:      mov     %si, %ax
        sub     $2, %ax
        movzbw  SECTORS_PER_CLUSTER, %cx
        mul     %cx
        add     %bp, %ax
5:      call    read
        add     $512, %bx
        inc     %ax
        loop    5b
        mov     %si, %di
        shr     $1, %di
        add     %si, %di
        mov     FAT(%di), %ax
        test    $1, %si
        jz      6f
        shr     $4, %ax
6:      and     $0xfff, %ax
        mov     %ax, %si
        cmp     $0xff8, %si
        jb      4b
        mov     drive, %dl
        ljmp    $0x1000, $0

read:   pusha                           # sector %ax of the disk to %es:%bx
        xor     %dx, %dx
        divw    SECTORS_PER_TRACK
        mov     %dl, %cl
        inc     %cl
        xor     %dx, %dx
        divw    HEADS
        mov     %al, %ch
        mov     %dl, %dh
        mov     drive, %dl
        mov     $0x0201, %ax
        int     $0x13
        jc      failed
        popa
        ret

failed: mov     $0x0e21, %ax            # "!"
        xor     %bx, %bx
        int     $0x10
1:      hlt
        jmp     1b

drive:  .byte   0
name:   .ascii  "LOADER  BIN"
        .org    510
        .word   0xaa55
