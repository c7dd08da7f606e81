/**
 * Law 18, of the memory map. A guest loads and stores over a few pages, and lets its device change what is mapped there
 * in between: so a page that a vCPU remembers too long is found too.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { HypercallId } from "../../domain/abi/HypercallId.ts"
import {
  MemoryRegionBatch,
  MemoryRegionOp,
  MemoryRegionOpCode,
  MemoryType
} from "../../domain/abi/MemoryRegionBatch.ts"
import { hex } from "../../domain/Address.ts"
import type { HypervisorProfile } from "../../domain/HypervisorProfile.ts"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../domain/IoRequest.ts"
import { ADDRESS_SPACE_END, PAGE_BYTES } from "../../domain/Limits.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import { ServiceMemory } from "../../services/ServiceMemory.ts"
import { VirtualMachine } from "../../services/VirtualMachine.ts"
import * as GuestProgram from "../GuestProgram.ts"
import * as Law from "../Law.ts"
import {
  cases,
  deviceByte,
  FIRST_BYTES,
  HOME_PAGES,
  type MapOperation,
  type MappingCase,
  RAM_BYTES,
  RETURN_OFFSET,
  SERVICE_PAGES,
  show,
  WINDOW,
  WINDOW_PAGES
} from "./MappingCase.ts"
import { expectedOf, type Seen, type Touch, wordBytes } from "./MappingReference.ts"

const CONTROL_PORT = 0x80
// The last page there can be, which no hypervisor has.
const NOWHERE = ADDRESS_SPACE_END - PAGE_BYTES
const OPERATIONS_OFFSET = 0x40

/** MOV ECX, address; CALL ECX. */
const call = (address: number): Uint8Array =>
  Uint8Array.of(0xb9, ...wordBytes(BigInt(address)).subarray(0, 4), 0xff, 0xd1)

/** 64-bit code where there must be some, or else what every hypervisor runs. */
const modeOf = ({ steps }: MappingCase): GuestProgram.Mode =>
  steps.some((step) => step._tag !== "Batch" && step.size === 8) ? "Long64" : "Protected32"

const operationsOf = (
  { called, steps }: MappingCase,
  keptBytes: 4 | 8
): ReadonlyArray<GuestProgram.OperationInput> => [
  ...steps.flatMap((step, index): ReadonlyArray<GuestProgram.OperationInput> => {
    switch (step._tag) {
      case "Batch":
        return [{ _tag: "PortOut", port: CONTROL_PORT, size: 1, value: index }]
      case "Load":
        return [
          { _tag: "Load", address: WINDOW + step.offset, size: step.size },
          { _tag: "Keep", size: keptBytes }
        ]
      case "Store": {
        const value = step.size === 8 ? step.value : Number(step.value)
        return [{ _tag: "Store", address: WINDOW + step.offset, size: step.size, value }]
      }
    }
  }),
  { _tag: "Code", bytes: call(WINDOW + called * PAGE_BYTES + RETURN_OFFSET) }
]

const encodeBatch = (vmid: number, scratch: number, pool: number, operations: ReadonlyArray<MapOperation>) => {
  const bytes = new Uint8Array(OPERATIONS_OFFSET + operations.length * MemoryRegionOp.size)
  const regionsGpa = BigInt(scratch + OPERATIONS_OFFSET)
  Result.getOrThrow(MemoryRegionBatch.encodeInto({ vmid, regionsNum: operations.length, regionsGpa }, bytes))
  for (const [index, operation] of operations.entries()) {
    const { isAdd, isSkewed, page, rights, service } = operation
    const encoded = MemoryRegionOp.encodeInto(
      {
        type: isAdd ? MemoryRegionOpCode.Add : MemoryRegionOpCode.Delete,
        attr: MemoryType.WriteBack | rights,
        userVmPa: BigInt(WINDOW + page * PAGE_BYTES + (isSkewed ? PAGE_BYTES / 2 : 0)),
        serviceVmPa: BigInt(service === "Nowhere" ? NOWHERE : pool + service * PAGE_BYTES),
        size: BigInt(operation.bytes)
      },
      bytes,
      OPERATIONS_OFFSET + index * MemoryRegionOp.size
    )
    Result.getOrThrow(encoded)
  }
  return bytes
}

/** Runs the case, and tells what the guest saw. */
const seenBy = (tried: MappingCase, { mapping }: HypervisorProfile) =>
  Effect.gen(function*() {
    const gate = yield* HypercallGate
    const memory = yield* ServiceMemory
    const machines = yield* VirtualMachine
    // Closed behind the VM: its pages go when nothing maps them any more.
    const poolScope = yield* Scope.fork(yield* Effect.scope)
    const { address: scratch } = yield* memory.allocate({
      bytes: PAGE_BYTES,
      purpose: { _tag: "HypercallStructures" }
    })
    const mode = modeOf(tried)
    const keptBytes = mode === "Long64" ? 8 : 4
    const operations = operationsOf(tried, keptBytes)
    const program = Result.getOrThrow(GuestProgram.assemble(operations, { mode, memoryBytes: RAM_BYTES }))
    const vm = yield* machines.create({ memoryBytes: RAM_BYTES })
    // Where RAM is one block, nothing else can be asked for as such; it is refused when it is to be mapped.
    const { address: pool } = yield* memory.allocate({
      bytes: SERVICE_PAGES * PAGE_BYTES,
      purpose: mapping === "Pages" ? { _tag: "GuestRam", vmId: vm.id } : { _tag: "HypercallStructures" }
    }).pipe(Scope.provide(poolScope))
    for (let page = 0; page < SERVICE_PAGES; page++) {
      yield* Effect.fromResult(memory.write(pool + page * PAGE_BYTES, FIRST_BYTES[HOME_PAGES + page]!))
    }

    const touches: Array<Touch> = []
    const results: Array<number> = []
    const touch = (request: IoRequest): IoValue => {
      if (request._tag !== "MmioRead" && request._tag !== "MmioWrite") return undefined
      let value = 0n
      for (let i = 0; i < request.size; i++) {
        const isWrite = request._tag === "MmioWrite"
        const address = request.address + i
        const byte = isWrite ? Number(request.value >> BigInt(8 * i) & 0xffn) : deviceByte(address)
        touches.push({ isWrite, address, byte })
        value |= BigInt(byte) << BigInt(8 * i)
      }
      return value
    }
    const runBatch = (request: IoRequest) =>
      Effect.suspend(() => {
        const step = request._tag === "PortWrite" ? tried.steps[request.value] : undefined
        if (step?._tag !== "Batch") return Effect.void
        Result.getOrThrow(memory.write(scratch, encodeBatch(vm.id, scratch, pool, step.operations)))
        return Effect.map(gate.call(HypercallId.SetMemoryRegions, BigInt(scratch), 0n), (result) => {
          results.push(result)
        })
      })
    yield* vm.attach(vm.io.register({
      name: "window",
      ranges: [
        IoRange.mmio(WINDOW, WINDOW + WINDOW_PAGES * PAGE_BYTES - 1),
        IoRange.ports(CONTROL_PORT, CONTROL_PORT)
      ],
      handle: (request) => "port" in request ? runBatch(request) : Effect.succeed(touch(request))
    }))

    yield* vm.load(program.plan)
    for (let page = 0; page < HOME_PAGES; page++) {
      yield* vm.memory.write(WINDOW + page * PAGE_BYTES, FIRST_BYTES[page]!)
    }
    const running = yield* vm.start
    const end = yield* running.ended
    yield* running.pause

    // Not what `results` of the program tells: a guest that may not execute the called page does not come to its end.
    const kept = yield* vm.memory.read(program.resultAddress, program.resultBytes)
    const view = new DataView(kept.buffer, kept.byteOffset, kept.length)
    const pages: Array<Uint8Array> = []
    for (let page = 0; page < HOME_PAGES; page++) {
      pages.push(yield* vm.memory.read(WINDOW + page * PAGE_BYTES, PAGE_BYTES))
    }
    for (let page = 0; page < SERVICE_PAGES; page++) {
      const bytes = new Uint8Array(PAGE_BYTES)
      yield* Effect.fromResult(memory.read(pool + page * PAGE_BYTES, bytes))
      pages.push(bytes)
    }
    const seen: Seen = {
      words: Array.from(
        { length: kept.length / keptBytes },
        (_, index) => keptBytes === 8 ? view.getBigUint64(8 * index, true) : BigInt(view.getUint32(4 * index, true))
      ),
      touches,
      results,
      pages,
      returned: end._tag === "Halted"
    }
    return seen
  })

const formatTouch = ({ address, byte, isWrite }: Touch): string =>
  `${isWrite ? "write" : "read"} of ${hex(byte)} at ${hex(address)}`

/** The first entry that is not the same in two lists, in words. */
const listDifference = <A>(
  what: string,
  seen: ReadonlyArray<A>,
  expected: ReadonlyArray<A>,
  format: (value: A) => string
): string | undefined => {
  const text = (value: A | undefined) => value === undefined ? "nothing" : format(value)
  for (let index = 0; index < Math.max(seen.length, expected.length); index++) {
    const [left, right] = [text(seen[index]), text(expected[index])]
    if (left !== right) return `${what} ${index + 1} is ${left}, and must be ${right}`
  }
  return undefined
}

const pageDifference = (seen: Seen, expected: Seen): string | undefined => {
  for (const [page, bytes] of expected.pages.entries()) {
    const found = seen.pages[page]!
    let offset = 0
    while (offset < PAGE_BYTES && bytes[offset] === found[offset]) offset++
    if (offset === PAGE_BYTES) continue
    const name = page < HOME_PAGES ? `home page ${page}` : `service page ${page - HOME_PAGES}`
    return `byte ${hex(offset)} of ${name} is ${hex(found[offset]!)} at the end, and must be ${hex(bytes[offset]!)}`
  }
  return undefined
}

const difference = (seen: Seen, expected: Seen): string | undefined =>
  listDifference("the result of batch", seen.results, expected.results, String) ??
    listDifference("the byte that arrives as request", seen.touches, expected.touches, formatTouch) ??
    listDifference("the word of load", seen.words, expected.words, hex) ??
    pageDifference(seen, expected) ??
    (seen.returned === expected.returned
      ? undefined
      : `the guest ${
        seen.returned
          ? "could execute the page that it called, and must not"
          : "must be able to execute the page that it called"
      }`)

export const memoryMap = Law.make<MappingCase>({
  number: 18,
  title: "the guest sees exactly the bytes mapped at each page, with the rights given; " +
    "a batch keeps the operations before its failure",
  skip: ({ profile }) => {
    if (profile.keepsRamMapped === true) return "RAM cannot be taken away from a VM (the profile's `keepsRamMapped`)"
    return profile.modes.includes("Protected32") ? undefined : "it does not run 32-bit programs"
  },
  cases: ({ profile }) => cases(profile),
  show,
  holds: (tried, { profile }) =>
    Effect.flatMap(seenBy(tried, profile), (seen) => Law.holdsUnless(difference(seen, expectedOf(tried, profile))))
})
