/**
 * What a program inside cannot know on ACRN: that a guest stopped by itself. Here the host tells, on the program's
 * standard input, a line of JSON for each end; it goes to the life of the VM that it is about, and to no later one.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import process from "node:process"
import { createInterface } from "node:readline"
import { HypercallId } from "../../../src/domain/abi/HypercallId.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import type { EndReason } from "../../../src/domain/EndReason.ts"
import { HypercallGate } from "../../../src/services/HypercallGate.ts"
import { GuestEnds, type Hypervisor } from "../../../src/services/Hypervisor.ts"
import { ServiceMemory } from "../../../src/services/ServiceMemory.ts"
import type { GuestEnd } from "../transport/Recorder.ts"

type Handler = (reason: EndReason) => void

// One input for all layers of the process: ids and lives are counted by the one host.
const lives = new Map<number, number>()
const ended = new Map<number, GuestEnd>()
const handlers = new Map<number, Set<Handler>>()

const nextLife = (vmId: number): void => {
  lives.set(vmId, (lives.get(vmId) ?? 0) + 1)
}

// The host knows of a life before this program does, when the driver has not returned from its request yet.
const endNow = (vmId: number): EndReason | undefined => {
  const end = ended.get(vmId)
  return end !== undefined && end.life === lives.get(vmId) ? end.reason : undefined
}

/** Hears of ends from now on; the program must end by `process.exit`. */
export const listen = (): void => {
  createInterface({ input: process.stdin }).on("line", (line) => {
    const end = JSON.parse(line) as GuestEnd
    ended.set(end.vmId, end)
    const reason = endNow(end.vmId)
    if (reason !== undefined) { for (const handler of handlers.get(end.vmId) ?? []) handler(reason) }
  })
}

const counting = (gate: HypercallGate["Service"], memory: ServiceMemory["Service"]): HypercallGate["Service"] => {
  const count = (id: number, param1: bigint): void => {
    if (id === HypercallId.ResetVm) nextLife(Number(param1 & 0xffffn))
    if (id !== HypercallId.CreateVm) return
    const bytes = new Uint8Array(VmCreation.size)
    Result.getOrThrow(memory.read(Number(param1), bytes))
    nextLife(Result.getOrThrow(VmCreation.decode(bytes)).vmid)
  }
  return HypercallGate.of({
    // Whatever ACRN can do, the vCPUs below are simulated ones.
    profile: { ...gate.profile, modes: ["Real", "Protected32"] },
    notifyFinish: gate.notifyFinish,
    call: (id, param1, param2) =>
      Effect.tap(
        gate.call(id, param1, param2),
        (result) => result === 0 ? Effect.sync(() => count(id, param1)) : Effect.void
      )
  })
}

/** A hypervisor of which the host tells how its guests end. */
export const withToldEnds = <R, E>(hypervisor: Layer.Layer<R | Hypervisor, E>): Layer.Layer<R | Hypervisor, E> =>
  Layer.effectContext(Effect.map(Layer.build(hypervisor), (context) =>
    context.pipe(
      Context.add(HypercallGate, counting(Context.get(context, HypercallGate), Context.get(context, ServiceMemory))),
      Context.add(GuestEnds, {
        register: (vmId, handler) => {
          const before = endNow(vmId)
          if (before !== undefined) handler(before)
          const all = handlers.get(vmId) ?? new Set()
          handlers.set(vmId, all.add(handler))
          return () => all.delete(handler)
        }
      })
    )))
