/** VMs on KVM whose vCPUs start in 64-bit mode, and code for them. */
import { Effect, Layer, type Scope } from "effect"
import * as VcpuRegisters from "../../../../src/domain/VcpuRegisters.ts"
import type { VcpuSnapshot } from "../../../../src/domain/VcpuSnapshot.ts"
import { gdt, GDT_BYTES, pageTables } from "../../../../src/layers/images/internal/identityMap.ts"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import { type Hypervisor, VcpuSnapshots } from "../../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import type { CreatedVm, Vm } from "../../../../src/services/Vm.ts"
import type { Code } from "../../../support/guest.ts"

export const RAM_BYTES = 0x4_0000
const TABLES = 0x1_0000
const GDT = 0x1_8000
const entryOf = (vcpu: number): number => 0x1000 + vcpu * 0x1000
const stackOf = (vcpu: number): number => 0x2_0000 + vcpu * 0x1000
/** A page for what each vCPU keeps. */
export const dataOf = (vcpu: number): number => 0x3_0000 + vcpu * 0x1000

type Provided = VirtualMachine.VirtualMachine | Hypervisor | Kvm.Capabilities | Scope.Scope

export const onKvm = (options: Kvm.KvmOptions = {}) => <A, E, R>(program: Effect.Effect<A, E, R>) =>
  program.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Kvm.layerWith(options))), { local: true })
  ) as Effect.Effect<A, E | Kvm.KvmError, Exclude<R, Provided>>

export const startOf = (vcpu: number): VcpuRegisters.VcpuRegisters =>
  VcpuRegisters.long64({
    entry: entryOf(vcpu),
    stack: stackOf(vcpu),
    pageTables: TABLES,
    gdt: { base: BigInt(GDT), limit: GDT_BYTES - 1 }
  })

export const setCode = (vm: Vm, vcpu: number, program: Code): Effect.Effect<void> =>
  Effect.orDie(vm.memory.write(entryOf(vcpu), Uint8Array.from(program)))

/** A VM whose first vCPUs are ready to run these programs; it may have more. */
export const boot = (programs: ReadonlyArray<Code>, vcpus = programs.length) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm: CreatedVm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus })
    yield* Effect.orDie(vm.memory.write(TABLES, pageTables(TABLES)))
    yield* Effect.orDie(vm.memory.write(GDT, gdt()))
    for (const [vcpu, program] of programs.entries()) {
      yield* setCode(vm, vcpu, program)
      yield* vm.setRegisters(vcpu, startOf(vcpu))
    }
    return vm
  })

export const readAll = (vm: Vm) =>
  Effect.gen(function*() {
    const snapshots = yield* VcpuSnapshots
    const all: Array<VcpuSnapshot> = []
    for (let vcpu = 0; vcpu < vm.vcpus; vcpu++) all.push(yield* snapshots.read(vm.id, vcpu))
    return all
  })

/** Returns once vCPU 0 waits for an answer. */
export const untilAsked = (vm: Vm): Effect.Effect<void> =>
  Effect.gen(function*() {
    while ((yield* vm.requests.inspect).slots[0]?.state !== "Pending") yield* Effect.sleep("1 millis")
  })

/** All but what runs on. */
export const still = (snapshot: VcpuSnapshot): Omit<VcpuSnapshot, "tsc"> => {
  const { tsc: _, ...rest } = snapshot
  return rest
}

export const code = (...parts: ReadonlyArray<Code>): Code => parts.flat()

const le = (value: number, bytes: number): Array<number> =>
  Array.from({ length: bytes }, (_, at) => Math.floor(value / 2 ** (8 * at)) & 0xff)

/** WRMSR of a value below 2^32; sets ECX, EAX and EDX. */
export const writeMsr = (index: number, value: number): Code => [
  0xb9,
  ...le(index, 4),
  0xb8,
  ...le(value, 4),
  0x31,
  0xd2,
  0x0f,
  0x30
]

/** MOV [address], value of 4 bytes; sets EDI. */
export const store32 = (address: number, value: number): Code => [0xbf, ...le(address, 4), 0xc7, 0x07, ...le(value, 4)]

/** Puts what XRSTOR calls legacy state to `address`, a multiple of 16, and FXRSTOR of it: an x87 control word, and XMM3. */
export const touchFloatingPoint = (address: number): Code =>
  code(
    // FXSAVE, so that all the rest is legal.
    [0xbf, ...le(address, 4), 0x0f, 0xae, 0x07],
    store32(address, 0x0000_027f),
    store32(address + 160 + 3 * 16, 0x1234_5678),
    [0xbf, ...le(address, 4), 0x0f, 0xae, 0x0f]
  )

/** MOV DRn, RAX. */
export const writeDebug = (register: number, value: number): Code => [
  0xb8,
  ...le(value, 4),
  0x0f,
  0x23,
  0xc0 | register << 3
]

/** UD2: there is no table of interrupts. */
export const tripleFault: Code = [0x0f, 0x0b]

/** What a mixing vCPU waits for between rounds while it is not 0, without asking anybody. */
export const holdOf = (vcpu: number): number => dataOf(vcpu) + 0x40

/**
 * `rounds` times: mixes what is in a general register, an XMM register, memory, an MSR and a device, and tells a port. So
 * each of them decides what is told next. All of it are instructions that a KVM can emulate, too.
 */
export const mixer = (vcpu: number, rounds: number, port: number): Code => {
  const round = code(
    [0x4d, 0x69, 0xe4, ...le(0x19_660d, 4)], // imul r12, r12, 0x19660d
    [0x49, 0x81, 0xc4, ...le(0x3c6e_f35f, 4)], // add r12, 0x3c6ef35f
    [0x4c, 0x01, 0x27], // add [rdi], r12
    [0x4c, 0x33, 0x27], // xor r12, [rdi]
    [0x0f, 0x11, 0x4f, 0x10], // movups [rdi + 16], xmm1
    [0x4c, 0x01, 0x67, 0x10], // add [rdi + 16], r12
    [0x8b, 0x47, 0x10], // mov eax, [rdi + 16]
    [0x0f, 0x10, 0x4f, 0x10], // movups xmm1, [rdi + 16]
    [0xef], // out dx, eax
    [0xed], // in eax, dx
    [0x49, 0x31, 0xc4], // xor r12, rax
    [0x41, 0x89, 0xd6], // mov r14d, edx
    [0xb9, ...le(0x174, 4), 0x0f, 0x32], // mov ecx, SYSENTER_CS; rdmsr
    [0x05, ...le(0x1234_5671, 4), 0x0f, 0x30], // add eax, 0x12345671; wrmsr
    [0x49, 0x31, 0xc4], // xor r12, rax
    [0x44, 0x89, 0xf2], // mov edx, r14d
    [0x83, 0x7f, 0x40, 0x00, 0x75, 0xfa] // cmp dword [rdi + 64], 0; jne
  )
  return code(
    [0xbf, ...le(dataOf(vcpu), 4)], // mov edi, data
    [0xba, ...le(port, 4)], // mov edx, port
    [0x41, 0xbf, ...le(rounds, 4)], // mov r15d, rounds
    [0x41, 0xbc, ...le(0x1357_9bdf + vcpu, 4)], // mov r12d, seed
    round,
    [0x41, 0xff, 0xcf, 0x0f, 0x85], // dec r15d; jnz
    le(-(round.length + 9) >>> 0, 4),
    [0xfa, 0xf4] // cli; hlt
  )
}
