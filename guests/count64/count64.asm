; count64: 64-bit guest whose vCPUs all count at once, each in device registers of its own.
;
; Every vCPU runs this same code. It writes its count to a port and to an 8-byte register in memory, reads both back and
; compares; each value carries the vCPU's number, so an answer that belongs to another vCPU shows. guests/README.md
; lists the registers. The first vCPU waits for the others by polling their outcomes and says how all of it ended.
;
; Each vCPU is started in 64-bit mode with memory mapped to itself, interrupts off, and
;   edi  its number, 0 to 15
;   esi  how many vCPUs there are
;   edx  how many rounds it makes, at least 1
; There is no stack and no descriptor table, and SSE and the FPU are left alone: some hypervisors interpret the kernel's
; side of a guest, and know little more than integers there.

LOAD_ADDRESS    equ 0x1000              ; guest physical; the entry point is the first byte

bits 64
default rel
org LOAD_ADDRESS

PORT_BLOCKS     equ 0x500               ; 16 ports for each vCPU
BLOCK_SHIFT     equ 4
COUNT_PORT      equ 0                   ; in the block, 4 bytes
OUTCOME_PORT    equ 4                   ; in the block, 4 bytes; 0 while the vCPU is counting

MEMORY_COUNTS   equ 0xE0000000          ; 8 bytes every 64 for each vCPU, above any RAM the guest is given
MEMORY_SHIFT    equ 6

NUMBER_SHIFT    equ 28                  ; a vCPU's number is in the highest digit of all that it writes

OUTCOME_RIGHT   equ 1
OUTCOME_PORT_WRONG equ 2
OUTCOME_MEMORY_WRONG equ 3

EXIT_PORT       equ 0xF4
EXIT_SUCCESS    equ 0x00
EXIT_LOST_COUNT equ 0x0F                ; the vCPUs' count of themselves in RAM is wrong
EXIT_VCPU_SHIFT equ 4                   ; else: the first vCPU that failed, and its outcome below

; r12d = number, r13d = vCPUs, r14d = rounds left, r15d = the port block,
; ebx = the register in memory, ebp = the next count.
start:
        mov     r12d, edi
        mov     r13d, esi
        mov     r14d, edx
        mov     r15d, r12d
        shl     r15d, BLOCK_SHIFT
        add     r15d, PORT_BLOCKS
        mov     ebx, r12d
        shl     ebx, MEMORY_SHIFT
        add     ebx, MEMORY_COUNTS
        mov     ebp, r12d
        shl     ebp, NUMBER_SHIFT

.round:
        inc     ebp
        mov     eax, ebp
        mov     edx, r15d               ; COUNT_PORT is the block's first
        out     dx, eax
        xor     eax, eax                ; an answer that does not arrive must not look right
        in      eax, dx
        cmp     eax, ebp
        jne     .port_wrong

        ; Both halves change each round, and are never the same: one that is lost or repeated shows.
        mov     rax, rbp
        not     rax
        shl     rax, 32
        or      rax, rbp
        mov     [rbx], rax
        xor     ecx, ecx
        mov     rcx, [rbx]
        cmp     rcx, rax
        jne     .memory_wrong

        dec     r14d
        jnz     .round
        mov     eax, OUTCOME_RIGHT
        jmp     .report
.port_wrong:
        mov     eax, OUTCOME_PORT_WRONG
        jmp     .report
.memory_wrong:
        mov     eax, OUTCOME_MEMORY_WRONG

.report:
        lock inc dword [arrived]
        lea     edx, [r15 + OUTCOME_PORT]
        out     dx, eax
        test    r12d, r12d
        jnz     halt

; Only the first vCPU comes here. It waits through a port and not by spinning in RAM: a hypervisor that runs the vCPUs
; in turns on one thread then has its occasion to go on to the next one.
wait_for_all:
        xor     ecx, ecx
        mov     edx, PORT_BLOCKS + OUTCOME_PORT
.poll:
        in      eax, dx
        test    eax, eax
        jz      .poll
        cmp     eax, OUTCOME_RIGHT
        jne     .failed
        add     edx, 1 << BLOCK_SHIFT
        inc     ecx
        cmp     ecx, r13d
        jb      .poll

        mov     al, EXIT_SUCCESS
        cmp     [arrived], r13d
        je      exit
        mov     al, EXIT_LOST_COUNT
        jmp     exit
.failed:
        shl     ecx, EXIT_VCPU_SHIFT
        or      eax, ecx

; al = the exit status. The host may stop us at the out; if it does not, we sleep for good.
exit:
        out     EXIT_PORT, al
halt:
        cli
        hlt
        jmp     halt

; How many vCPUs are done, which they count themselves.
align 4, db 0
arrived:        dd 0
