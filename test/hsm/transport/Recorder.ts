/**
 * What passed between the driver and the hypervisor, as values.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import type { EndReason } from "../../../src/domain/EndReason.ts"
import * as Hypercall from "../../../src/domain/Hypercall.ts"
import { ADDRESS_SPACE_END, INVALID_VM_ID } from "../../../src/domain/Limits.ts"
import { MAX_BATCH_OPERATIONS } from "../../../src/services/HypercallBackend.ts"
import { HypercallGate } from "../../../src/services/HypercallGate.ts"
import { GuestEnds } from "../../../src/services/Hypervisor.ts"
import { ServiceMemory } from "../../../src/services/ServiceMemory.ts"

/**
 * One hypercall of the driver.
 *
 * - `call`: as a value; `undefined` when the id is no hypercall that we know, or a structure is not where it should be.
 * - `created`: what CREATE_VM filled in.
 * - `ms`: how long the answer took.
 */
export interface RecordedCall {
  readonly raw: Hypercall.RawHypercall
  readonly call: Hypercall.Hypercall | undefined
  readonly result: number
  readonly created?: { readonly vmId: number; readonly vcpuNum: number }
  readonly ms: number
}

/** The end of a guest, as the hypervisor knows it. `life` counts what was created and reset under this id so far. */
export interface GuestEnd {
  readonly vmId: number
  readonly life: number
  readonly reason: EndReason
}

export interface HostRecord {
  readonly calls: Array<RecordedCall>
  readonly ends: Array<GuestEnd>
}

/**
 * - `intercept`: answers a call instead of the hypervisor, or leaves it to it with `undefined`.
 * - `isRecording`: whether calls are kept, default true; a long run has too many of them.
 * - `onEnd`: hears of each guest's end.
 */
export interface RecorderOptions {
  readonly intercept?: (call: Hypercall.Hypercall | undefined, raw: Hypercall.RawHypercall) => number | undefined
  readonly isRecording?: boolean
  readonly onEnd?: (end: GuestEnd) => void
}

/** Passes raw calls to the hypervisor's gate and writes down in `record` what was asked and answered. */
export const recorder = (
  record: HostRecord,
  { intercept = () => undefined, isRecording = true, onEnd = () => undefined }: RecorderOptions
) =>
  Effect.gen(function*() {
    const lives = new Map<number, number>()
    const nextLife = (vmId: number) => lives.set(vmId, (lives.get(vmId) ?? 0) + 1)
    const gate = yield* HypercallGate
    const memory = yield* ServiceMemory
    const guestEnds = yield* GuestEnds

    const read = (address: bigint, bytes: number): Uint8Array | undefined => {
      if (address >= BigInt(ADDRESS_SPACE_END)) return undefined
      const into = new Uint8Array(bytes)
      return Result.isSuccess(memory.read(Number(address), into)) ? into : undefined
    }
    const createdAt = (address: bigint): RecordedCall["created"] => {
      const bytes = read(address, VmCreation.size)
      const creation = bytes && Result.getOrUndefined(VmCreation.decode(bytes))
      return creation && { vmId: creation.vmid, vcpuNum: creation.vcpuNum }
    }
    const pass = ({ id, param1, param2 }: Hypercall.RawHypercall): Effect.Effect<number> =>
      id === HypercallId.NotifyRequestFinish
        ? Effect.sync(() => gate.notifyFinish(Number(param1 & 0xffffn), Number(param2 & 0xffffn)))
        : gate.call(id, param1, param2)

    return (raw: Hypercall.RawHypercall): Effect.Effect<number> =>
      Effect.suspend(() => {
        const call = Result.getOrUndefined(Hypercall.decode(raw, read, MAX_BATCH_OPERATIONS))
        const instead = intercept(call, raw)
        const begin = performance.now()
        return Effect.map(instead === undefined ? pass(raw) : Effect.succeed(instead), (result) => {
          const ms = performance.now() - begin
          const created = call?._tag === "CreateVm" && result === 0 ? createdAt(raw.param1) : undefined
          if (isRecording) record.calls.push({ raw, call, result, ms, ...(created && { created }) })
          if (created !== undefined && created.vmId !== INVALID_VM_ID) {
            const { vmId } = created
            nextLife(vmId)
            guestEnds.register(vmId, (reason) => {
              const end = { vmId, life: lives.get(vmId) ?? 0, reason }
              record.ends.push(end)
              onEnd(end)
            })
          }
          if (call?._tag === "ResetVm" && result === 0) nextLife(call.vmId)
          return result
        })
      })
  })
