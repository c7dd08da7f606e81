/**
 * Guests that do what no guest should, in machine code for each processor mode. None of them may do more than end itself:
 * `fates` says how it may come, `Runs` that it goes on for ever. Processors and KVMs differ in what they call an end.
 */
import type { EndReason } from "../../../../src/domain/EndReason.ts"
import * as VcpuRegisters from "../../../../src/domain/VcpuRegisters.ts"
import { gdt, pageTables } from "../../../../src/layers/images/internal/identityMap.ts"
import * as g from "../../../support/guest.ts"

export type Mode = "Real" | "Protected32" | "Long64"
export type Fate = EndReason["_tag"] | "Runs"

export interface Adversary {
  readonly name: string
  readonly mode: Mode
  readonly code: g.Code
  /** What lies elsewhere in its RAM. */
  readonly data?: ReadonlyArray<readonly [address: number, bytes: g.Code]>
  readonly vcpus?: number
  readonly fates: ReadonlyArray<Fate>
}

export const RAM_BYTES = 0x4_0000
export const CODE = 0x1000
const TABLES = 0x3_0000
const DESCRIPTORS = 0x3_8000
const STACK = 0x8000
const IDT = 0x2000
const IDT_POINTER = 0x2f00
const HANDLER = 0x3000
const BEYOND_RAM = 0x1000_0000
/** Of an address that the page tables have no entry for. */
const UNMAPPED = 2 ** 40

const le32 = (value: number): g.Code => g.mov(0, value).slice(1)
const le64 = (value: number): g.Code => [...le32(value % 2 ** 32), ...le32(Math.floor(value / 2 ** 32))]

const callGate64 = (handler: number): g.Code => [
  handler & 0xff,
  handler >> 8 & 0xff,
  0x10,
  0,
  0,
  0x8e,
  handler >> 16 & 0xff,
  ...Array.from({ length: 9 }, () => 0)
]

/** MOV ESP, the stack; then the instruction that brought it here. */
const again = (instruction: g.Code): g.Code => [...g.mov(g.Reg.esp, STACK), ...instruction]

const crash: ReadonlyArray<Fate> = ["Shutdown", "InternalError", "UnsupportedInstruction"]
const runs: ReadonlyArray<Fate> = ["Runs"]

/** XOR EAX, EAX; REP STOSQ */
const clearQuads: g.Code = [0x31, 0xc0, 0xf3, 0x48, 0xab]
/** MOV RAX, CR3; MOV CR3, RAX */
const reloadTables: g.Code = [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]

/** IN and OUT of every size at DX, which goes through all ports and begins anew. */
const everyPort = (operandPrefix: g.Code, wordPrefix: g.Code): g.Code => [
  0xee,
  0xec,
  ...wordPrefix,
  0xef,
  ...wordPrefix,
  0xed,
  ...operandPrefix,
  0xef,
  ...operandPrefix,
  0xed,
  // ADD DX, 7
  ...wordPrefix,
  0x83,
  0xc2,
  0x07
]

/** Goes through the addresses from RDI on, `step` bytes at a time. */
const everyAddress = (accesses: g.Code, step: number): g.Code => g.forever(accesses, [0x81, 0xc7, ...le32(step)])

export const adversaries: ReadonlyArray<Adversary> = [
  { name: "uses all ports, in real mode", mode: "Real", code: [...everyPort([0x66], []), 0xeb, 0xf2], fates: runs },
  { name: "uses all ports", mode: "Protected32", code: g.forever(everyPort([], [0x66])), fates: runs },
  {
    name: "writes a string without an end to a port",
    mode: "Protected32",
    code: g.repOut(0x500, 0x4000, 0xffff_ffff),
    fates: runs
  },
  {
    name: "reads a string without an end, over its own code and beyond its RAM",
    mode: "Protected32",
    code: g.repIn(0x500, 0, 0xffff_ffff, 4),
    fates: ["Runs", ...crash]
  },
  {
    name: "touches memory that there is not",
    mode: "Protected32",
    code: [...g.mov(g.Reg.edi, RAM_BYTES), ...everyAddress([0x89, 0x07, 0x8b, 0x07, 0x88, 0x47, 0x03], 0x1_1003)],
    fates: runs
  },
  {
    name: "touches memory that there is not, 8 bytes at a time",
    mode: "Long64",
    code: [...g.mov(g.Reg.edi, RAM_BYTES), ...everyAddress([0x48, 0x89, 0x07, 0x48, 0x8b, 0x07], 0x1_1003)],
    fates: runs
  },
  {
    name: "touches the last bytes of its RAM and the first behind it at once",
    mode: "Protected32",
    code: [...g.mov(g.Reg.edi, RAM_BYTES - 2), ...g.forever([0x89, 0x07, 0x8b, 0x07])],
    fates: runs
  },
  {
    name: "copies without an end where there is no memory",
    mode: "Protected32",
    code: g.repMove(0x8000_0000, 0x9000_0000, 0xffff_ffff, 4),
    fates: runs
  },
  {
    name: "writes to its local APIC, or to where that would be",
    mode: "Protected32",
    code: [...g.mov(g.Reg.edi, 0xfee0_0000), ...everyAddress([0x89, 0x07, 0x8b, 0x07], 0x10)],
    fates: runs
  },
  { name: "jumps into a hole", mode: "Protected32", code: [0xe9, ...le32(BEYOND_RAM)], fates: crash },
  { name: "jumps into a hole, in 64-bit mode", mode: "Long64", code: [0xe9, ...le32(BEYOND_RAM)], fates: crash },
  { name: "jumps behind its RAM, in real mode", mode: "Real", code: [0xea, 0, 0, 0, 0xf0], fates: crash },
  {
    name: "runs off the end of its RAM",
    mode: "Protected32",
    code: [0xe9, ...le32(RAM_BYTES - 16 - CODE - 5)],
    data: [[RAM_BYTES - 16, Array.from({ length: 16 }, () => 0x90)]],
    fates: crash
  },
  {
    name: "jumps where its page tables map nothing",
    mode: "Long64",
    code: [0x48, 0xb8, ...le64(UNMAPPED), 0xff, 0xe0],
    fates: ["Shutdown"]
  },
  { name: "faults three times", mode: "Protected32", code: [0x0f, 0x0b], fates: ["Shutdown"] },
  { name: "faults three times, in 64-bit mode", mode: "Long64", code: [0x0f, 0x0b], fates: ["Shutdown"] },
  { name: "spins with interrupts off", mode: "Protected32", code: [...g.cli, ...g.spin], vcpus: 2, fates: runs },
  { name: "spins with interrupts off, in real mode", mode: "Real", code: [...g.cli, ...g.spin], fates: runs },
  { name: "spins with interrupts off, in 64-bit mode", mode: "Long64", code: [...g.cli, ...g.spin], fates: runs },
  {
    name: "faults in its page fault handler for ever",
    mode: "Long64",
    code: [0x0f, 0x01, 0x1c, 0x25, ...le32(IDT_POINTER), 0x48, 0xb8, ...le64(UNMAPPED), 0x8b, 0x18],
    data: [
      [IDT_POINTER, [0xff, 0x01, ...le64(IDT)]],
      [IDT + 14 * 16, callGate64(HANDLER)],
      [HANDLER, again([0x8b, 0x18])]
    ],
    // A KVM that does not deliver exceptions as the processor does shuts down.
    fates: ["Runs", "Shutdown"]
  },
  {
    name: "faults in its handler of illegal instructions for ever",
    mode: "Protected32",
    code: [...g.lidt(IDT_POINTER), 0x0f, 0x0b],
    data: [
      [IDT_POINTER, g.tablePointer(IDT, 32)],
      [IDT + 6 * 8, g.gate(HANDLER)],
      [HANDLER, again([0x0f, 0x0b])]
    ],
    fates: ["Runs", "Shutdown"]
  },
  {
    name: "writes its own code as it goes",
    mode: "Protected32",
    // INC BYTE [the number of the next instruction]; MOV AL, number; OUT DX, AL
    code: g.forever([0xfe, 0x05, ...le32(CODE + 7), 0xb0, 0x00], g.mov(g.Reg.edx, 0x500), [0xee]),
    fates: runs
  },
  {
    name: "writes its own code as it goes, in 64-bit mode",
    mode: "Long64",
    code: g.forever([0xfe, 0x04, 0x25, ...le32(CODE + 8), 0xb0, 0x00], g.mov(g.Reg.edx, 0x500), [0xee]),
    fates: runs
  },
  {
    name: "clears its own page tables",
    mode: "Long64",
    code: [...g.mov(g.Reg.edi, TABLES), ...g.mov(g.Reg.ecx, 0x6000 / 8), ...clearQuads, ...reloadTables, ...g.spin],
    fates: ["Shutdown"]
  },
  {
    name: "maps another page with each round",
    mode: "Long64",
    code: g.forever(
      [0x48, 0x81, 0x04, 0x25, ...le32(TABLES + 0x2000 + 400 * 8), ...le32(0x20_0000)],
      reloadTables,
      [0x8b, 0x04, 0x25, ...le32(400 * 0x20_0000)]
    ),
    fates: ["Runs", "Shutdown"]
  },
  {
    name: "fills its RAM with what looks like requests",
    mode: "Protected32",
    // Words that read as PENDING wherever a slot would have its state.
    code: [
      ...g.mov(g.Reg.edi, 0x9000),
      ...g.mov(g.Reg.ecx, 0x1_0000 / 4),
      0x31,
      0xc0,
      0xf3,
      0xab,
      ...g.forever(g.out(0x500, 1))
    ],
    fates: runs
  },
  {
    name: "halts, with interrupts on and off",
    mode: "Real",
    code: [...g.sti, ...g.hlt, 0xeb, 0xfd],
    vcpus: 4,
    fates: ["Runs", "Halted"]
  },
  { name: "halts on every vCPU", mode: "Protected32", code: g.stop, vcpus: 4, fates: ["Halted"] },
  {
    name: "interrupts itself without an end",
    mode: "Real",
    code: [0xcd, 0x80, 0xeb, 0xfc],
    data: [[0x80 * 4, [HANDLER & 0xff, HANDLER >> 8, 0, 0]], [HANDLER, g.iret]],
    fates: runs
  },
  { name: "interrupts itself without a table", mode: "Protected32", code: [0xcc], fates: crash },
  {
    name: "reads registers that there are not",
    mode: "Long64",
    code: g.forever([0x0f, 0x32, 0xff, 0xc1]),
    fates: ["Runs", ...crash]
  },
  {
    name: "writes a register that there is not",
    mode: "Protected32",
    code: [...g.mov(g.Reg.ecx, 0x1234), 0x0f, 0x30],
    fates: crash
  },
  { name: "asks what the processor is", mode: "Protected32", code: g.forever([0x0f, 0xa2]), fates: runs },
  { name: "calls its hypervisor", mode: "Protected32", code: g.forever([0x0f, 0x01, 0xc1]), fates: ["Runs", ...crash] },
  {
    name: "sets all bits of CR4",
    mode: "Long64",
    code: [...g.mov(g.Reg.eax, 0xffff_ffff), 0x0f, 0x22, 0xe0],
    fates: crash
  },
  {
    name: "leaves long mode without leaving it",
    mode: "Long64",
    code: [...g.mov(g.Reg.ecx, 0xc000_0080), 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30, ...g.spin],
    fates: crash
  },
  {
    name: "leaves protected mode and goes on in 32-bit code",
    mode: "Protected32",
    code: [0x0f, 0x20, 0xc0, 0x34, 0x01, 0x0f, 0x22, 0xc0, ...g.spin],
    fates: ["Runs", ...crash]
  },
  {
    name: "single-steps itself",
    mode: "Protected32",
    code: g.forever([0x9c, 0x81, 0x0c, 0x24, ...le32(0x100), 0x9d]),
    fates: ["Runs", ...crash]
  },
  { name: "flushes all caches", mode: "Protected32", code: g.forever([0x0f, 0x09]), fates: runs },
  { name: "executes zeros", mode: "Protected32", code: [0, 0], fates: ["Runs", ...crash] }
]

/** The registers of its vCPUs. */
export const registersOf = (mode: Mode, gprs: Partial<VcpuRegisters.GeneralRegisters> = {}) => {
  switch (mode) {
    case "Real":
      return VcpuRegisters.realMode({ ip: CODE, sp: STACK, gprs })
    case "Protected32":
      return VcpuRegisters.flat32({ entry: CODE, stack: STACK, gprs })
    case "Long64":
      return VcpuRegisters.long64({
        entry: CODE,
        stack: STACK,
        pageTables: TABLES,
        gprs,
        gdt: { base: BigInt(DESCRIPTORS), limit: gdt().length - 1 }
      })
  }
}

/** All that lies in its RAM. */
export const memoryOf = ({ code, data = [] }: Adversary): ReadonlyArray<readonly [number, Uint8Array]> => [
  [TABLES, pageTables(TABLES)],
  [DESCRIPTORS, gdt()],
  [CODE, Uint8Array.from(code)],
  ...data.map(([address, bytes]) => [address, Uint8Array.from(bytes)] as const)
]
