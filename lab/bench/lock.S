/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Firmware that writes to memory which a balloon may take, a few pages at a
 * time, and between that reads an I/O port, for which a vCPU needs QEMU's big
 * lock.  It keeps account of how long each read took, in units of 256 ticks of
 * the time stamp counter:
 *
 *   0x1000  the longest read
 *   0x1008  the counter now, 8 bytes
 *   0x1100  number of reads by size: four classes between powers of two
 *
 * It is in real mode all the time: TCG knows no limits of segments.
 */

#define AREA            0x8000000       /* AREA of bench_machine.py */
#define AREA_END        0x10000000
#define PAGE            4096
#define PAGES           16              /* a turn */

        .code16
        .globl _start
_start:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     $AREA, %ebp
again:
        mov     $PAGES, %cx
touch:
        movb    $0xa5, %ds:(%ebp)
        add     $PAGE, %ebp
        cmp     $AREA_END, %ebp
        jb      next
        mov     $AREA, %ebp
next:
        loop    touch
        rdtsc
        mov     %eax, 0x1008
        mov     %edx, 0x100c
        mov     %eax, %ebx
        mov     %edx, %esi
        in      $0x80, %al
        rdtsc
        sub     %ebx, %eax
        sbb     %esi, %edx
        shrd    $8, %edx, %eax
        cmp     0x1000, %eax
        jbe     classify
        mov     %eax, 0x1000
classify:
        /* class = 4 * exponent + the two bits that follow the first */
        or      $4, %eax
        bsr     %eax, %edi
        mov     %edi, %ecx
        sub     $2, %cl
        shr     %cl, %eax
        lea     -4(%eax, %edi, 4), %edi
        incl    0x1100(, %edi, 4)
        jmp     again

        .org    0xfff0
        ljmp    $0xf000, $_start
        .org    0x10000
