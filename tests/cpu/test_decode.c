/* SPDX-License-Identifier: Apache-2.0 -- decoder: encodings that are easy to get wrong */
// LAYERS: cpu
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "cpu/insn.h"

/* All features, with Intel's ways. */
static const struct cpu_features *all(void)
{
    static struct cpu_features f;
    memset(&f, 0xff, sizeof f);
    cpu_features_clear(&f, CPU_FEATURE_AMD);
    return &f;
}

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    unsigned v;
    for (; sscanf(hex, "%2x", &v) == 1; hex += 2) {
        out[n++] = (uint8_t)v;
        while (hex[2] == ' ')
            hex++;
    }
    return n;
}

static enum insn_status decode(struct insn *in, const char *hex, int bits,
                               const struct cpu_features *f)
{
    uint8_t bytes[64];
    size_t n = unhex(hex, bytes);
    enum insn_mode mode = bits == 16 ? INSN_MODE_16 : bits == 32 ? INSN_MODE_32 : INSN_MODE_64;
    return insn_decode(in, bytes, n, mode, f);
}

struct vector {
    int bits;
    const char *hex;
    const char *text; /* NULL: #UD */
};

static void check(const struct vector *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct insn in;
        char text[160] = "";
        enum insn_status s = decode(&in, v[i].hex, v[i].bits, all());
        if (s == INSN_OK)
            insn_format(text, sizeof text, &in, 0x1000);
        else
            snprintf(text, sizeof text, "status %d", s);
        const char *want = v[i].text ? v[i].text : "status -2";
        if (strcmp(text, want) != 0)
            fail_msg("%d-bit %s: \"%s\", not \"%s\"", v[i].bits, v[i].hex, text, want);
        uint8_t bytes[64];
        if (s == INSN_OK)
            assert_int_equal(in.len, unhex(v[i].hex, bytes));
    }
}
#define CHECK(v) check(v, sizeof(v) / sizeof *(v))

static void operand_sizes(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "01d8", "add eax,ebx" },
        { 64, "6601d8", "add ax,bx" },
        { 64, "4801d8", "add rax,rbx" },
        { 64, "664801d8", "add rax,rbx" },
        { 16, "01d8", "add ax,bx" },
        { 16, "6601d8", "add eax,ebx" },
        { 64, "50", "push rax" },
        { 64, "6650", "push ax" },
        { 64, "4150", "push r8" },
        { 32, "6650", "push ax" },
        { 16, "6650", "push eax" },
        { 64, "6aff", "push 0xffffffffffffffff" },
        { 64, "666aff", "push 0xffff" },
        { 64, "6668cdab", "push 0xabcd" },
        { 64, "68000000f0", "push 0xfffffffff0000000" },
        { 64, "c80800 01", "enter 0x8,0x1" },
        { 64, "66c9", "leave" },
        { 64, "e800000000", "call 0x1005" },
        { 64, "66e800000000", "call 0x1006" }, /* Intel: 66 ignored */
        { 32, "66e80000", "call 0x1004" },
        { 32, "66e9fcef", "jmp 0x0" },
        { 16, "e9fdef", "jmp 0x0" },
        { 16, "66e900000000", "jmp 0x1006" },
        { 64, "66ffe0", "jmp rax" },
        { 64, "66ff10", "call QWORD PTR [rax]" },
        { 64, "48b8efcdab8967452301", "movabs rax,0x123456789abcdef" },
        { 64, "66b83412", "mov ax,0x1234" },
        { 64, "48c7c0ffffffff", "mov rax,0xffffffffffffffff" },
        { 64, "4898", "cdqe" },
        { 64, "6699", "cwd" },
        { 64, "63c1", "movsxd eax,ecx" },
        { 64, "6663c1", "movsxd ax,cx" },
        { 32, "63c1", "arpl cx,ax" },
        { 64, "40b601", "mov sil,0x1" },
        { 64, "b601", "mov dh,0x1" },
        { 64, "4488e0", "mov al,r12b" },
        { 64, "0f20d8", "mov rax,cr3" },
        { 32, "0f20d8", "mov eax,cr3" },
        { 64, "440f20c0", "mov rax,cr8" },
        { 64, "0f2018", "mov rax,cr3" }, /* mod ignored */
        { 64, "0fc8", "bswap eax" },
        { 64, "490fc8", "bswap r8" },
        { 32, "6668cdab", "push 0xabcd" },
        { 64, "f2660f38f1c1", "crc32 eax,cx" },
        { 64, "f2480f38f1c1", "crc32 rax,rcx" },
        { 64, "66f20f38f1c1", "crc32 eax,cx" },
        { 64, "f20f38f0c1", "crc32 eax,cl" },
        { 64, "0f38f000", "movbe eax,DWORD PTR [rax]" },
        { 64, "660f38f000", "movbe ax,WORD PTR [rax]" },
        { 64, "66480f6ec0", "movq xmm0,rax" },
        { 32, "c4e1f96ec0", "vmovd xmm0,eax" },
        { 64, "c4e1f96ec0", "vmovq xmm0,rax" },
        { 32, "c4e3f922c801", "vpinsrd xmm1,xmm0,eax,0x1" },
    };
    CHECK(v);
}

static void addresses(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 16, "8b00", "mov ax,WORD PTR [bx+si]" },
        { 16, "8b06cdab", "mov ax,WORD PTR ds:0xabcd" },
        { 16, "8b4600", "mov ax,WORD PTR [bp+0x0]" },
        { 16, "8b87ffff", "mov ax,WORD PTR [bx-0x1]" },
        { 16, "67668b0424", "mov eax,DWORD PTR [esp]" },
        { 32, "678b07", "mov eax,DWORD PTR [bx]" },
        { 32, "8b05efbeadde", "mov eax,DWORD PTR ds:0xdeadbeef" },
        { 64, "8b0500000000", "mov eax,DWORD PTR [rip+0x0]" },
        { 64, "678b0500000000", "mov eax,DWORD PTR [eip+0x0]" },
        { 64, "8b042500000080", "mov eax,DWORD PTR ds:0xffffffff80000000" },
        { 64, "418b4500", "mov eax,DWORD PTR [r13+0x0]" },
        { 64, "418b0424", "mov eax,DWORD PTR [r12]" },
        { 64, "428b0420", "mov eax,DWORD PTR [rax+r12*1]" },
        { 64, "8b0420", "mov eax,DWORD PTR [rax]" },
        { 64, "8b048500000000", "mov eax,DWORD PTR [rax*4+0x0]" },
        { 64, "648b00", "mov eax,DWORD PTR fs:[rax]" },
        { 64, "2e8b00", "mov eax,DWORD PTR [rax]" },
        { 32, "2e8b00", "mov eax,DWORD PTR cs:[eax]" },
        { 64, "a1efcdab8967452301", "movabs eax,ds:0x123456789abcdef" },
        { 64, "67a1efcdab89", "mov eax,ds:0x89abcdef" },
        { 32, "a0efcdab89", "mov al,ds:0x89abcdef" },
        { 16, "a3cdab", "mov ds:0xabcd,ax" },
        { 64, "f348a5", "rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]" },
        { 64, "6467a4", "movs BYTE PTR es:[edi],BYTE PTR fs:[esi]" },
        { 64, "f2ae", "repnz scas al,BYTE PTR es:[rdi]" },
        { 32, "26d7", "xlat BYTE PTR es:[ebx]" },
        { 32, "6626d7", "xlat BYTE PTR es:[ebx]" },
        { 64, "c4e2719014a0", "vpgatherdd xmm2,DWORD PTR [rax+xmm4*4],xmm1" },
        { 64, "c4e2f59114a0", "vpgatherqq ymm2,QWORD PTR [rax+ymm4*4],ymm1" },
        { 64, "c4e2f59014a0", "vpgatherdq ymm2,QWORD PTR [rax+xmm4*4],ymm1" },
        { 64, "c4e2719000", NULL },               /* no SIB */
        { 64, "c4e2719024a0", NULL },             /* dest == index */
        { 64, "c4e2599014a0", NULL },             /* mask == index */
        { 64, "c4e2699014a0", NULL },             /* mask == dest */
    };
    CHECK(v);
}

static void prefixes(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "4866 50", "push ax" },             /* REX before 66 is dropped */
        { 64, "4841 50", "push r8" },             /* the last REX counts */
        { 64, "4867 8b00", "mov eax,DWORD PTR [eax]" },
        { 64, "f390", "pause" },
        { 64, "90", "nop" },
        { 64, "6690", "nop" },
        { 64, "4190", "xchg r8d,eax" },
        { 64, "4890", "nop" },
        { 64, "f34190", "pause" },
        { 64, "91", "xchg ecx,eax" },
        { 64, "f3 0fbcc1", "tzcnt eax,ecx" },
        { 64, "f30fbdc1", "lzcnt eax,ecx" },
        { 64, "f20fbcc1", "bsf eax,ecx" },
        { 64, "f266f30fb8c1", "popcnt ax,cx" },   /* the last of F2 F3 */
        { 64, "0fb8c1", NULL },
        { 64, "660fb8c1", NULL },
        { 64, "66f30f10c1", "movss xmm0,xmm1" },  /* F3 before 66 */
        { 64, "f3660f10c1", "movss xmm0,xmm1" },
        { 64, "f3f20f10c1", "movsd xmm0,xmm1" },
        { 64, "f30f14c1", NULL },
        { 64, "f30f38f0c1", NULL },
        { 64, "f30f1efa", "endbr64" },
        { 64, "f30f1efb", "endbr32" },
        { 64, "f30f1ec8", "nop eax" },
        { 64, "0f1f440000", "nop DWORD PTR [rax+rax*1+0x0]" },
        { 64, "66f20f38f100", "crc32 eax,WORD PTR [rax]" },
        { 64, "660f38f6c1", "adcx eax,ecx" },
        { 64, "f30f38f6c1", "adox eax,ecx" },
        { 64, "66f30f38f6c1", "adox eax,ecx" },
        { 64, "f3c3", "ret" },
        { 64, "66c5f877", NULL },                 /* 66 F2 F3 LOCK REX before VEX */
        { 64, "f3c5f877", NULL },
        { 64, "f2c5f877", NULL },
        { 64, "f0c5f877", NULL },
        { 64, "40c5f877", NULL },
        { 64, "64c5f877", "vzeroupper" },
        { 64, "67c5f877", "vzeroupper" },
        { 32, "66c5f877", NULL },
        { 32, "c5f877", "vzeroupper" },
        { 32, "66c500", "lds ax,DWORD PTR [eax]" },
    };
    CHECK(v);
}

static void lock(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "f00108", "lock add DWORD PTR [rax],ecx" },
        { 64, "f001c8", NULL },
        { 64, "f00308", NULL },
        { 64, "f03908", NULL },
        { 64, "f0fe00", "lock inc BYTE PTR [rax]" },
        { 64, "f0f718", "lock neg DWORD PTR [rax]" },
        { 64, "f0f620", NULL },
        { 64, "f08608", "lock xchg BYTE PTR [rax],cl" },
        { 64, "f00fa308", NULL },                 /* BT */
        { 64, "f00fab08", "lock bts DWORD PTR [rax],ecx" },
        { 64, "f00fba3001", "lock btr DWORD PTR [rax],0x1" },
        { 64, "f00fba2001", NULL },
        { 64, "f00fc708", "lock cmpxchg8b QWORD PTR [rax]" },
        { 64, "f0480fc708", "lock cmpxchg16b OWORD PTR [rax]" },
        { 64, "f08908", NULL },                   /* MOV */
        { 64, "f090", NULL },
        { 64, "f0a4", NULL },
        { 64, "f0d120", NULL },
        { 64, "f00fae38", NULL },
        { 64, "f00f2100", NULL },                 /* MOV DR */
        { 64, "f00f20d8", NULL },                 /* MOV CR3 */
        { 32, "f082 0001", "lock add BYTE PTR [eax],0x1" },
    };
    CHECK(v);
}

static void undefined(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "06", NULL }, { 64, "0e", NULL }, { 64, "1f", NULL }, { 64, "27", NULL },
        { 64, "2f", NULL }, { 64, "37", NULL }, { 64, "3f", NULL }, { 64, "60", NULL },
        { 64, "61", NULL }, { 64, "8200 01", NULL }, { 64, "9a", NULL }, { 64, "ea", NULL },
        { 64, "ce", NULL }, { 64, "d40a", NULL }, { 64, "d50a", NULL }, { 64, "d6", NULL },
        { 32, "8ec8", NULL },                     /* MOV CS */
        { 32, "8ee8", "mov gs,ax" }, { 32, "8ef0", NULL }, { 32, "8cf8", NULL },
        { 64, "448ce8", "mov eax,gs" },           /* REX.R ignored */
        { 64, "0f20c8", NULL }, { 64, "0f20e8", NULL }, { 64, "440f20c8", NULL },
        { 64, "440f21c0", NULL },                 /* DR8 */
        { 64, "0f24c0", NULL }, { 64, "0f0408", NULL }, { 64, "0f0a", NULL },
        { 64, "fe10", NULL }, { 64, "ff38", NULL }, { 64, "ffd8", NULL }, { 64, "ffe8", NULL },
        { 64, "8dc0", NULL },                     /* LEA reg */
        { 32, "c4e0781001", NULL }, { 32, "6200", "bound eax,QWORD PTR [eax]" },
        { 64, "8fc8", NULL }, { 64, "c6c8", NULL }, { 64, "c708", NULL },
        { 64, "0fff00", "ud0 eax,DWORD PTR [rax]" },
        { 64, "0fb900", "ud1 eax,DWORD PTR [rax]" },
        { 64, "0f0b", "ud2" },
        { 64, "0f00f0", NULL }, { 64, "0f01e8", NULL }, { 64, "0f01c2", NULL },
        { 64, "0f01c1", "vmcall" }, { 64, "0f01d9", "vmmcall" }, { 64, "0f01c8", "monitor" },
        { 64, "0f01d0", "xgetbv" }, { 64, "660f01d0", NULL }, { 64, "0f01f8", "swapgs" },
        { 32, "0f01f8", NULL }, { 64, "0f01f9", "rdtscp" }, { 64, "0f01ca", "clac" },
        { 64, "0f01ee", "rdpkru" }, { 64, "0f3f", NULL }, { 64, "0f37", NULL },
        { 64, "0fba00", NULL }, { 64, "0fba5801", NULL },
        { 64, "0fc730", NULL },                   /* VMPTRLD */
        { 64, "0fc7f0", "rdrand eax" }, { 64, "660fc7f0", "rdrand ax" },
        { 64, "f30fc7f0", NULL }, { 64, "f30fc7f8", "rdpid rax" }, { 64, "0fc7f8", "rdseed eax" },
        { 64, "0fc7c8", NULL },                   /* CMPXCHG8B reg */
        { 64, "0faec0", NULL }, { 64, "0faee8", "lfence" }, { 64, "0faef3", "mfence" },
        { 64, "f30faec0", "rdfsbase eax" }, { 32, "f30faec0", NULL },
        { 64, "f3480faed8", "wrgsbase rax" },
        { 64, "f1", "int1" }, { 32, "d6", "salc" },
        { 64, "f608ff", "test BYTE PTR [rax],0xff" }, { 64, "f708ffffffff",
          "test DWORD PTR [rax],0xffffffff" },
        { 64, "c0300f", "shl BYTE PTR [rax],0xf" }, { 64, "d1f0", "shl eax,1" },
        { 64, "d3f0", "shl eax,cl" },
        { 64, "0f0d08", "prefetchw BYTE PTR [rax]" }, { 64, "0f0dc8", "nop eax" },
        { 64, "0f18c0", "nop eax" }, { 64, "0f1bc0", "nop eax" },
    };
    CHECK(v);
}

static void vex(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "c5f858c1", "vaddps xmm0,xmm0,xmm1" },
        { 64, "c5fc58c1", "vaddps ymm0,ymm0,ymm1" },
        { 64, "c57a58c1", "vaddss xmm8,xmm0,xmm1" },
        { 64, "c57e58c1", "vaddss xmm8,xmm0,xmm1" }, /* scalar: L ignored */
        { 64, "c5f828c1", "vmovaps xmm0,xmm1" },
        { 64, "c5f028c1", NULL },                 /* vvvv must be 1111b */
        { 64, "c4e370f0c1 01", NULL },
        { 64, "c4e37bf0c101", "rorx eax,ecx,0x1" },
        { 64, "c4e37ff0c101", NULL },             /* L must be 0 */
        { 64, "c4e270f2c2", "andn eax,ecx,edx" },
        { 64, "c4e2f0f2c2", "andn rax,rcx,rdx" },
        { 32, "c4e2f0f2c2", "andn eax,ecx,edx" }, /* W ignored outside 64-bit mode */
        { 64, "c4e278f3ca", "blsr eax,edx" },
        { 64, "c4e278f3c2", NULL },
        { 64, "c4e37d06c201", "vperm2f128 ymm0,ymm0,ymm2,0x1" },
        { 64, "c4e37906c201", NULL },
        { 64, "c4e3fd06c201", NULL },             /* W must be 0 */
        { 64, "c4e3794ac120", "vblendvps xmm0,xmm0,xmm1,xmm2" },
        { 64, "c4e2f198c2", "vfmadd132pd xmm0,xmm1,xmm2" },
        { 32, "c4e2f198c2", "vfmadd132pd xmm0,xmm1,xmm2" },
        { 64, "c5f877", "vzeroupper" }, { 64, "c5fc77", "vzeroall" },
        { 64, "c5fbf000", "vlddqu xmm0,XMMWORD PTR [rax]" }, { 64, "c5fbf0c0", NULL },
        { 64, "c4e27d1800", "vbroadcastss ymm0,DWORD PTR [rax]" },
        { 64, "c4e2791900", NULL },
        { 64, "c4e27d58c1", "vpbroadcastd ymm0,xmm1" },
        { 64, "c4e07800", NULL },                 /* map 0 */
        { 64, "c4e47800", NULL },                 /* map 4 */
        { 32, "c5f8580d00000000", "vaddps xmm1,xmm0,XMMWORD PTR ds:0x0" },
    };
    CHECK(v);
}

static void x87(void **state)
{
    (void)state;
    static const struct vector v[] = {
        { 64, "d8c1", "fadd st,st(1)" }, { 64, "dcc1", "fadd st(1),st" },
        { 64, "dce1", "fsubr st(1),st" }, { 64, "dce9", "fsub st(1),st" },
        { 64, "dee1", "fsubrp st(1),st" }, { 64, "def9", "fdivp st(1),st" },
        { 64, "dcd1", "fcom st(1)" }, { 64, "dcd9", "fcomp st(1)" }, { 64, "ded1", "fcomp st(1)" },
        { 64, "ded9", "fcompp" }, { 64, "deda", NULL }, { 64, "ddc9", "fxch st(1)" },
        { 64, "dfc9", "fxch st(1)" }, { 64, "dfd1", "fstp st(1)" }, { 64, "d9d9", "fstp st(1)" },
        { 64, "dfc1", "ffreep st(1)" }, { 64, "d9d0", "fnop" }, { 64, "d9d1", NULL },
        { 64, "dbe2", "fnclex" }, { 64, "dbe3", "fninit" }, { 64, "dbe0", "fneni" },
        { 64, "dbe4", "fnsetpm" }, { 64, "dbe5", NULL }, { 64, "dfe0", "fnstsw ax" },
        { 64, "dfe1", NULL }, { 64, "db28", "fld TBYTE PTR [rax]" },
        { 64, "db20", NULL }, { 64, "dd30", "fnsave [rax]" }, { 64, "d930", "fnstenv [rax]" },
        { 64, "9b", "fwait" }, { 64, "d9e2", NULL }, { 64, "d9ef", NULL },
        { 64, "dae9", "fucompp" },
        { 64, "dae8", NULL },
    };
    CHECK(v);
}

struct size_vector {
    int bits;
    const char *hex;
    unsigned opnd;
    unsigned size;
    unsigned access;
};

static void memory_sizes_and_access(void **state)
{
    (void)state;
    static const struct size_vector v[] = {
        { 64, "660f382000", 0, 16, OPND_W },
        { 64, "660f382000", 1, 8, OPND_R },   /* PMOVSXBW */
        { 64, "660f382200", 1, 2, OPND_R },   /* PMOVSXBQ */
        { 64, "c4e27d2000", 1, 16, OPND_R },
        { 64, "c4e27d2200", 1, 4, OPND_R },
        { 64, "0f6000", 1, 4, OPND_R },       /* PUNPCKLBW mm, m32 */
        { 64, "f30f5800", 1, 4, OPND_R },
        { 64, "f20f5800", 1, 8, OPND_R },
        { 64, "0f5a00", 1, 8, OPND_R },       /* CVTPS2PD */
        { 64, "c5fc5a00", 1, 16, OPND_R },
        { 64, "c5fd5a00", 1, 32, OPND_R },
        { 64, "660f3a140001", 0, 1, OPND_W }, /* PEXTRB */
        { 64, "660f3a210001", 1, 4, OPND_R }, /* INSERTPS */
        { 64, "d930", 0, 28, OPND_W },
        { 64, "66d930", 0, 14, OPND_W },
        { 16, "d930", 0, 14, OPND_W },
        { 64, "dd30", 0, 108, OPND_W },
        { 16, "dd20", 0, 94, OPND_R },
        { 64, "db28", 0, 10, OPND_R },
        { 64, "df20", 0, 10, OPND_R },
        { 64, "df00", 0, 2, OPND_R },
        { 64, "0fae00", 0, 0, OPND_W },
        { 64, "0f0110", 0, 10, OPND_R },
        { 32, "0f0100", 0, 6, OPND_W },
        { 64, "8d00", 1, 4, 0 },
        { 64, "0f0138", 0, 1, 0 },
        { 64, "0f00c0", 0, 4, OPND_W },       /* SLDT eax */
        { 64, "0f0000", 0, 2, OPND_W },
        { 64, "8c00", 0, 2, OPND_W },
        { 64, "488cc0", 0, 8, OPND_W },
        { 64, "ff18", 0, 6, OPND_R },         /* CALL m16:32 */
        { 64, "48ff18", 0, 10, OPND_R },
        { 32, "66ff18", 0, 4, OPND_R },
        { 32, "6200", 1, 8, OPND_R },         /* BOUND */
        { 64, "0fb100", 0, 4, OPND_RW },
        { 64, "8708", 1, 4, OPND_RW },
        { 64, "8f00", 0, 8, OPND_W },
        { 64, "0ff7c1", 2, 8, OPND_W },       /* MASKMOVQ, the rDI side */
        { 64, "660ff7c1", 2, 16, OPND_W },
        { 64, "c4e2752e00", 0, 32, OPND_W },  /* VMASKMOVPS */
        { 64, "c4e2719014a0", 1, 4, OPND_R },
        { 64, "c4e2719014a0", 2, 16, OPND_RW },
        { 64, "c5fb1200", 1, 8, OPND_R },     /* VMOVDDUP */
        { 64, "c5ff1200", 1, 32, OPND_R },
        { 64, "c4e37d1d0001", 0, 16, OPND_W }, /* VCVTPS2PH */
        { 64, "6d", 0, 4, OPND_W },           /* INS */
        { 64, "486d", 0, 4, OPND_W },
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct insn in;
        assert_int_equal(decode(&in, v[i].hex, v[i].bits, all()), INSN_OK);
        if (in.opnd[v[i].opnd].size != v[i].size || in.opnd[v[i].opnd].access != v[i].access)
            fail_msg("%s: operand %u has size %u access %u", v[i].hex, v[i].opnd,
                     in.opnd[v[i].opnd].size, in.opnd[v[i].opnd].access);
    }
}

static void lengths(void **state)
{
    (void)state;
    struct insn in;
    uint8_t run[32];
    memset(run, 0x66, sizeof run);
    for (size_t n = 0; n < INSN_MAX_LEN; n++)
        assert_int_equal(insn_decode(&in, run, n, INSN_MODE_64, all()), INSN_NEED_MORE);
    assert_int_equal(insn_decode(&in, run, 15, INSN_MODE_64, all()), INSN_TOO_LONG);
    assert_int_equal(insn_decode(&in, run, 32, INSN_MODE_64, all()), INSN_TOO_LONG);
    run[14] = 0x90;
    assert_int_equal(insn_decode(&in, run, 15, INSN_MODE_64, all()), INSN_OK);
    assert_int_equal(in.len, 15);
    run[14] = 0xb0; /* its immediate is the 16th byte */
    assert_int_equal(insn_decode(&in, run, 15, INSN_MODE_64, all()), INSN_TOO_LONG);
    run[13] = 0xb0;
    assert_int_equal(insn_decode(&in, run, 14, INSN_MODE_64, all()), INSN_NEED_MORE);
    assert_int_equal(insn_decode(&in, run, 15, INSN_MODE_64, all()), INSN_OK);
    run[11] = 0xe8; /* the displacement of CALL would end at 16 */
    assert_int_equal(insn_decode(&in, run, 15, INSN_MODE_64, all()), INSN_TOO_LONG);
    assert_int_equal(insn_decode(&in, run, 14, INSN_MODE_64, all()), INSN_NEED_MORE);
}

static void features_decide(void **state)
{
    (void)state;
    struct insn in;
    struct cpu_features none = { { 0 } };
    struct cpu_features f = none;
    assert_int_equal(decode(&in, "f30fbcc1", 64, &none), INSN_OK);
    assert_int_equal(in.op, OP_BSF);
    assert_true(in.flags & INSN_REP);
    assert_int_equal(decode(&in, "f30fbdc1", 64, &none), INSN_OK);
    assert_int_equal(in.op, OP_BSR);
    assert_int_equal(decode(&in, "f30fb8c1", 64, &none), INSN_UD);
    assert_int_equal(decode(&in, "0f40c1", 32, &none), INSN_UD);
    assert_int_equal(decode(&in, "0f58c1", 32, &none), INSN_UD);
    assert_int_equal(decode(&in, "c5f877", 32, &none), INSN_UD);
    assert_int_equal(decode(&in, "c4e270f2c2", 64, &none), INSN_UD);
    assert_int_equal(decode(&in, "0f1fc0", 32, &none), INSN_OK);
    assert_int_equal(decode(&in, "f390", 32, &none), INSN_OK);
    assert_int_equal(decode(&in, "9f", 64, &none), INSN_UD);
    assert_int_equal(decode(&in, "9f", 32, &none), INSN_OK);
    cpu_features_set(&f, CPU_FEATURE_AVX);
    assert_int_equal(decode(&in, "c5f9fcc1", 64, &f), INSN_OK);
    assert_int_equal(decode(&in, "c5fdfcc1", 64, &f), INSN_UD); /* 256-bit integers: AVX2 */
    assert_int_equal(decode(&in, "f00f20c0", 32, &f), INSN_UD);
    cpu_features_set(&f, CPU_FEATURE_CR8_LEGACY);
    assert_int_equal(decode(&in, "f00f20c0", 32, &f), INSN_OK);
    assert_int_equal(in.opnd[1].reg, 8);
}

/* Where AMD's processors take the same bytes otherwise. */
static void amd_decides(void **state)
{
    (void)state;
    struct insn in;
    struct cpu_features amd = *all();
    cpu_features_set(&amd, CPU_FEATURE_AMD);
    assert_int_equal(decode(&in, "66e80102030405", 64, &amd), INSN_OK);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(in.len, 4);
    assert_int_equal(decode(&in, "6648e801020304", 64, &amd), INSN_OK);
    assert_int_equal(in.opsize, 8);
    assert_int_equal(in.len, 7);
    assert_int_equal(decode(&in, "66c3", 64, &amd), INSN_OK);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(decode(&in, "ffe0", 64, &amd), INSN_OK);
    assert_int_equal(in.opsize, 8);
    assert_int_equal(decode(&in, "0f0dc8", 64, &amd), INSN_UD);
    assert_int_equal(decode(&in, "0f0d08", 64, &amd), INSN_OK);
    assert_int_equal(decode(&in, "f390", 64, &amd), INSN_OK);
    assert_int_equal(in.op, OP_PAUSE);
    assert_int_equal(decode(&in, "f34190", 64, &amd), INSN_OK);
    assert_int_equal(in.op, OP_XCHG);
    assert_int_equal(decode(&in, "f34190", 64, all()), INSN_OK);
    assert_int_equal(in.op, OP_PAUSE);
    assert_int_equal(decode(&in, "c4e3f916c001", 32, &amd), INSN_UD);
    assert_int_equal(decode(&in, "c4e3f916c001", 32, all()), INSN_OK);
    assert_int_equal(decode(&in, "c4e37d00c001", 64, &amd), INSN_OK);
    assert_int_equal(in.op, OP_VPERMQ);
    assert_int_equal(decode(&in, "c4e37d00c001", 64, all()), INSN_UD);
    assert_int_equal(decode(&in, "666300", 64, &amd), INSN_OK);
    assert_int_equal(in.opnd[1].size, 4);
    assert_int_equal(decode(&in, "480fb201", 64, &amd), INSN_OK);
    assert_int_equal(in.opnd[1].size, 6);
    assert_int_equal(decode(&in, "480fb201", 64, all()), INSN_OK);
    assert_int_equal(in.opnd[1].size, 10);
}

static void flags_refined(void **state)
{
    (void)state;
    struct insn in;
    decode(&in, "7401", 64, all());
    assert_int_equal(insn_flags_read(&in), 0x40);
    decode(&in, "7f01", 64, all());
    assert_int_equal(insn_flags_read(&in), 0x8c0);
    decode(&in, "11c0", 64, all());
    assert_int_equal(insn_flags_read(&in), 0x1);
    assert_int_equal(insn_flags_written(&in), 0x8d5);
    decode(&in, "c1e000", 64, all());
    assert_int_equal(insn_flags_written(&in), 0);
    decode(&in, "c1e005", 64, all());
    assert_int_equal(insn_flags_read(&in), 0);
    assert_int_equal(insn_flags_written(&in), 0x8d5);
    decode(&in, "d3e0", 64, all());
    assert_int_equal(insn_flags_read(&in), 0x8d5);
    decode(&in, "f3a6", 64, all());
    assert_int_equal(insn_flags_read(&in), 0x8d5 | 0x400);
    decode(&in, "ffc0", 64, all());
    assert_int_equal(insn_flags_written(&in), 0x8d4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operand_sizes),   cmocka_unit_test(addresses),
        cmocka_unit_test(prefixes),        cmocka_unit_test(lock),
        cmocka_unit_test(undefined),       cmocka_unit_test(vex),
        cmocka_unit_test(x87),             cmocka_unit_test(memory_sizes_and_access),
        cmocka_unit_test(lengths),         cmocka_unit_test(features_decide),
        cmocka_unit_test(amd_decides),     cmocka_unit_test(flags_refined),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
