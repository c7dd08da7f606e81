/**
 * A VM whose page is garbage beside one whose requests are proper, both in the same scans: with upcalls that name no
 * slot, the Service VM looks at the first VM before the second.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import type { IoRequest } from "../../domain/IoRequest.ts"
import { SLOT_BYTES } from "../../domain/Limits.ts"
import type { Hypervisor } from "../../services/Hypervisor.ts"
import { ServiceMemory } from "../../services/ServiceMemory.ts"
import * as Upcalls from "../../services/Upcalls.ts"
import * as Generator from "../Generator.ts"
import * as Trace from "../Trace.ts"
import { machinesOver, withRequestPages } from "./over.ts"
import { PageByHand, slotBytes } from "./PageByHand.ts"
import * as Reference from "./Reference.ts"
import * as World from "./World.ts"

/** A slot of the bad VM: a state that need not be one, and every word of the request the same. */
export interface Garbage {
  readonly slot: number
  readonly state: number
  readonly word: number
}

const { Complete, Free, Pending } = Slot.SlotStateCode
const MAX_TURNS = 100
const LITTLE_ENDIAN = true

export const garbage = (vcpus: number): Generator.Generator<Garbage> =>
  Generator.all({
    slot: Generator.integer(0, vcpus - 1),
    state: Generator.elementOf([0, 2, 4, -1, 0x7fff_ffff]),
    word: Generator.elementOf([0, 1, 4, -1])
  })

const garbageBytes = ({ state, word }: Garbage): Uint8Array => {
  const bytes = new Uint8Array(SLOT_BYTES)
  const view = new DataView(bytes.buffer)
  for (let offset = 0; offset < SLOT_BYTES; offset += 4) view.setInt32(offset, word, LITTLE_ENDIAN)
  view.setInt32(Slot.SLOT_STATE_OFFSET, state, LITTLE_ENDIAN)
  return bytes
}

/** Why the requests of vCPU 0 of the good VM are not served as the reference says, if they are not. */
export const problemBeside = (
  trouble: { readonly vcpus: number; readonly slots: ReadonlyArray<Garbage> },
  world: World.World,
  requests: ReadonlyArray<IoRequest>
) =>
  Effect.gen(function*() {
    const hypervisor = yield* Effect.context<Hypervisor>()
    const memory = Context.get(hypervisor, ServiceMemory)
    const upcalls = Upcalls.make()
    const pages: Array<PageByHand> = []
    const machines = yield* machinesOver(hypervisor.pipe(
      Context.add(Upcalls.Upcalls, upcalls.service),
      Context.add(
        ServiceMemory,
        withRequestPages(memory, (page, address) => {
          pages.push(new PageByHand(memory, address))
          return page
        })
      )
    ))
    const bad = yield* machines.create({ name: "bad", vcpus: trouble.vcpus, memoryBytes: 4096 })
    const good = yield* machines.create({ name: "good", memoryBytes: 4096 })
    yield* bad.attach(World.install(bad, { seed: 0, clients: [], default: { _tag: "Throws" } }))
    yield* good.attach(World.install(good, world))
    const recording = yield* Trace.record(good)
    const [badPage, page] = pages
    const dispatcher = new Reference.Dispatcher(world)
    const expected: Array<Reference.Served> = []
    for (const request of requests) {
      for (const each of trouble.slots) badPage!.fill(each.slot, garbageBytes(each))
      page!.fill(0, slotBytes(request, Pending))
      expected.push(dispatcher.serve(request))
      upcalls.raise(undefined)
      for (let turn = 0; turn < MAX_TURNS && page!.state(0) !== Complete; turn++) yield* Effect.yieldNow
      if (page!.state(0) !== Complete) return `request ${expected.length - 1} of the good VM is not answered`
      page!.setState(0, Free)
    }
    return Reference.firstDifference(expected, Reference.servedIn((yield* recording.trace).entries, 1)[0]!)
  })
