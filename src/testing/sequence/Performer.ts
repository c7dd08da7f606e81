/**
 * Makes the calls of a sequence at a hypercall gate, as ids, words and bytes: nothing typed stands between. VMs are
 * named by the order in which they were created; what the gate called them is known here alone.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { fromNumber, HypercallId } from "../../domain/abi/HypercallId.ts"
import { IoRequestBufferWord } from "../../domain/abi/IoRequestBufferWord.ts"
import { SLOT_STATE_OFFSET } from "../../domain/abi/IoRequestSlot.ts"
import * as IrqLineWord from "../../domain/abi/IrqLineWord.ts"
import { MemoryRegionBatch, MemoryRegionOp } from "../../domain/abi/MemoryRegionBatch.ts"
import { VcpuRegs } from "../../domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../domain/abi/VmCreation.ts"
import { Errno } from "../../domain/Errno.ts"
import { ADDRESS_SPACE_END, INVALID_VM_ID, MAX_VCPUS, PAGE_BYTES, SLOT_BYTES } from "../../domain/Limits.ts"
import * as VcpuRegisters from "../../domain/VcpuRegisters.ts"
import { HypercallGate } from "../../services/HypercallGate.ts"
import { Resume, VcpuState } from "../../services/Hypervisor.ts"
import { ServiceMemory, type ServiceMemoryError } from "../../services/ServiceMemory.ts"
import { type Call, NAMED_VMS, RAM_BYTES } from "./Call.ts"

/** What a call gave: its result, the vCPUs of the VM that it made, and what is wrong with its answer by itself. */
export interface Outcome {
  readonly result: number
  readonly vcpus?: number
  readonly problem?: string
}

export interface Performer {
  readonly perform: (call: Call) => Effect.Effect<Outcome>
  /** The states of the slots of a named VM's page. */
  readonly slots: (vm: number) => ReadonlyArray<number>
  /** RAX of a vCPU; `undefined` when there is nothing to read, and `None` on layers that cannot tell. */
  readonly registers: (vm: number, vcpu: number) => Effect.Effect<Option.Option<number | undefined>>
  /** Ends the sequence: pauses and destroys what is left, and tells the ids of VMs that would not go. */
  readonly finish: Effect.Effect<ReadonlyArray<number>>
}

// Service addresses that are no memory: the last page there can be, and one whose structures wrap around.
const NOWHERE = BigInt(ADDRESS_SPACE_END - PAGE_BYTES)
const WRAPPING = (1n << 64n) - 8n
// What CREATE_VM finds in the field that it fills in.
const UNTOUCHED = 0x1234
const OPERATIONS_OFFSET = 0x40
const HLT = 0xf4
// No sequence maps anything that does more than halt, wherever a vCPU starts.
const ENTRY = 0x1000

const bytesOf = <A, E>(encoded: Result.Result<A, E>): A => Result.getOrThrow(encoded)

export const make: Effect.Effect<Performer, ServiceMemoryError, HypercallGate | ServiceMemory | Scope.Scope> = Effect
  .gen(
    function*() {
      const gate = yield* HypercallGate
      const memory = yield* ServiceMemory
      const resume = yield* Effect.serviceOption(Resume)
      const vcpuState = yield* Effect.serviceOption(VcpuState)
      const structures = { _tag: "HypercallStructures" } as const
      const { address: scratch } = yield* memory.allocate({ bytes: PAGE_BYTES, purpose: structures })
      // Where RAM is one block, nothing else can be asked for as such; where it is pages, they are any VM's.
      const { address: ram } = yield* memory.allocate({
        bytes: RAM_BYTES,
        purpose: gate.profile.mapping === "Pages" ? { _tag: "GuestRam", vmId: 0 } : structures
      })
      yield* Effect.fromResult(memory.write(ram, new Uint8Array(RAM_BYTES).fill(HLT)))
      const onePage = memory.allocate({ bytes: PAGE_BYTES, purpose: { _tag: "IoRequestPage" } })
      const pages = yield* Effect.forEach(
        Array.from({ length: NAMED_VMS }),
        () => Effect.map(onePage, ({ address }) => address)
      )
      const views = pages.map((address) => Result.getOrThrow(memory.page(address)))

      const ids: Array<number> = []
      const living = new Set<number>()
      const destroyed = new Set<number>()

      /** The id of a named VM; one that is no VM's where the name stands for none. A gone VM's id may be another's now. */
      const idOf = (vm: number): number => {
        const id = ids[vm]
        return id === undefined || (destroyed.has(vm) && living.has(id)) ? INVALID_VM_ID : id
      }

      /** Where a call finds its structure: in memory, written there before, or at a place that has none. */
      const place = (structure: "Memory" | "Nowhere" | "Wrapping", bytes: () => Uint8Array): bigint => {
        if (structure === "Nowhere") return NOWHERE
        if (structure === "Wrapping") return WRAPPING
        Result.getOrThrow(memory.write(scratch, bytes()))
        return BigInt(scratch)
      }

      const plain = (id: number, vm: number): Effect.Effect<Outcome> =>
        Effect.map(gate.call(id, BigInt(idOf(vm)), 0n), (result) => ({ result }))

      const pointed = (id: number, vm: number, word: bigint): Effect.Effect<Outcome> =>
        Effect.map(gate.call(id, BigInt(idOf(vm)), word), (result) => ({ result }))

      const create = (call: Extract<Call, { readonly _tag: "Create" }>): Effect.Effect<Outcome> => {
        const creation = { vmid: UNTOUCHED, vcpuNum: 0, uuid: new Uint8Array(16), vmFlag: 0n, ioreqBuf: 0n }
        const at = place(
          call.structure,
          () => bytesOf(VmCreation.encode({ ...creation, cpuAffinity: call.affinity }))
        )
        return Effect.map(gate.call(HypercallId.CreateVm, at, 0n), (result): Outcome => {
          if (call.structure !== "Memory") return { result }
          const bytes = new Uint8Array(VmCreation.size)
          Result.getOrThrow(memory.read(scratch, bytes))
          const { vcpuNum, vmid } = bytesOf(VmCreation.decode(bytes))
          if (result < 0) {
            return vmid === UNTOUCHED ? { result } : { result, problem: `it was refused and gave VM id ${vmid}` }
          }
          if (vmid === INVALID_VM_ID) return { result }
          if (living.has(vmid)) return { result, vcpus: vcpuNum, problem: `VM id ${vmid} is another VM's` }
          ids.push(vmid)
          living.add(vmid)
          return { result, vcpus: vcpuNum }
        })
      }

      const setRegions = (call: Extract<Call, { readonly _tag: "SetRegions" }>): Effect.Effect<Outcome> => {
        const at = place(call.structure, () => {
          const { operations } = call
          const bytes = new Uint8Array(OPERATIONS_OFFSET + operations.length * MemoryRegionOp.size)
          const head = {
            vmid: idOf(call.vm),
            regionsNum: operations.length,
            regionsGpa: BigInt(scratch + OPERATIONS_OFFSET)
          }
          bytesOf(MemoryRegionBatch.encodeInto(head, bytes))
          for (const [index, { attributes, guest, service, size, type }] of operations.entries()) {
            const operation = {
              type,
              attr: attributes,
              userVmPa: guest,
              serviceVmPa: service === "Own" ? BigInt(ram) : NOWHERE,
              size: BigInt(size)
            }
            bytesOf(MemoryRegionOp.encodeInto(operation, bytes, OPERATIONS_OFFSET + index * MemoryRegionOp.size))
          }
          return bytes
        })
        return Effect.map(gate.call(HypercallId.SetMemoryRegions, at, 0n), (result) => ({ result }))
      }

      const destroy = (vm: number): Effect.Effect<Outcome> =>
        Effect.tap(plain(HypercallId.DestroyVm, vm), ({ result }) =>
          Effect.sync(() => {
            if (result !== 0) return
            living.delete(ids[vm]!)
            destroyed.add(vm)
          }))

      const perform = (call: Call): Effect.Effect<Outcome> => {
        switch (call._tag) {
          case "Create":
            return create(call)
          case "Destroy":
            return destroy(call.vm)
          case "Start":
            return plain(HypercallId.StartVm, call.vm)
          case "Pause":
            return plain(HypercallId.PauseVm, call.vm)
          case "Reset":
            return plain(HypercallId.ResetVm, call.vm)
          case "Resume":
            return Option.isNone(resume)
              ? Effect.succeed({ result: -Errno.ENOTTY })
              : Effect.map(resume.value.resume(idOf(call.vm)), (result) => ({ result }))
          case "SetRegisters": {
            const legal = VcpuRegisters.flat32({ entry: ENTRY, gprs: { rax: BigInt(call.rax) } })
            const vcpuRegs = {
              ...legal,
              cr0: call.control === "BadCr0" ? 1n : legal.cr0,
              cr4: call.control === "BadCr4" ? 1n << 63n : legal.cr4
            }
            const at = place(call.structure, () => bytesOf(VcpuRegs.encode({ vcpuId: call.vcpu, vcpuRegs })))
            return pointed(HypercallId.SetVcpuRegs, call.vm, at)
          }
          case "SetPage": {
            const own = BigInt(pages[call.vm]!)
            const ioreqBuf = call.page === "Nowhere" ? NOWHERE : call.page === "Misaligned" ? own + 8n : own
            const at = place(call.structure, () => bytesOf(IoRequestBufferWord.encode({ ioreqBuf })))
            return pointed(HypercallId.SetIoRequestBuffer, call.vm, at)
          }
          case "Notify":
            return call.form === "Synchronous"
              ? Effect.sync(() => ({ result: gate.notifyFinish(idOf(call.vm), call.vcpu) }))
              : pointed(HypercallId.NotifyRequestFinish, call.vm, BigInt(call.vcpu))
          case "SetRegions":
            return setRegions(call)
          case "SetIrqLine":
            return pointed(HypercallId.SetIrqLine, call.vm, IrqLineWord.toWord({ gsi: call.line, op: call.operation }))
          case "Unknown":
            return Effect.map(gate.call(fromNumber(call.number), 1n, 1n), (result) => ({ result }))
          case "WriteSlot":
            return Effect.sync(() => {
              views[call.vm]!.store32(call.slot * SLOT_BYTES + SLOT_STATE_OFFSET, call.state)
              return { result: 0 }
            })
        }
      }

      const destroyAgain = (id: number): Effect.Effect<ReadonlyArray<number>> =>
        gate.call(HypercallId.PauseVm, BigInt(id), 0n).pipe(
          Effect.andThen(gate.call(HypercallId.DestroyVm, BigInt(id), 0n)),
          Effect.map((result) => {
            if (result !== 0 && living.has(id)) return [id]
            living.delete(id)
            return []
          })
        )
      // Also what was said to be destroyed: a hypervisor that only says so must not run out of VMs over many sequences.
      const finish = Effect.suspend(() =>
        Effect.map(Effect.forEach([...new Set(ids.splice(0))], destroyAgain), (left) => left.flat())
      )
      // An interrupted sequence leaves nothing behind either.
      yield* Effect.addFinalizer(() => finish)

      return {
        perform: (call) => Effect.suspend(() => perform(call)),
        slots: (vm) =>
          Array.from(
            { length: MAX_VCPUS },
            (_, slot) => views[vm]!.load32(slot * SLOT_BYTES + SLOT_STATE_OFFSET) >>> 0
          ),
        registers: (vm, vcpu) =>
          Option.isNone(vcpuState)
            ? Effect.succeedNone
            : Effect.map(
              vcpuState.value.read(idOf(vm), vcpu),
              (read) => Option.some(read === undefined ? undefined : Number(read.gprs.rax))
            ),
        finish
      }
    }
  )
