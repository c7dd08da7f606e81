/** What the tests of the adversaries share: a guest that shows every difference, and a count of what is not given back. */
import { Context, Effect, Layer, Result } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import { mmio, pciFunction, ports } from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import { Machine } from "../../src/services/Machine.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"
import * as VirtualMachines from "../../src/services/VirtualMachine.ts"
import * as GuestProgram from "../../src/testing/GuestProgram.ts"
import * as GuestRun from "../../src/testing/GuestRun.ts"
import { brief, turns } from "./machines.ts"

/** Regions of Service VM memory that were given and not given back, by purpose. */
export class Given extends Context.Service<Given, { readonly regions: () => ReadonlyArray<string> }>()("test/Given") {}

const counted: Layer.Layer<Given | ServiceMemory, never, ServiceMemory> = Layer.effectContext(
  Effect.map(ServiceMemory, (memory) => {
    const regions: Array<string> = []
    return Context.make(Given, { regions: () => [...regions] }).pipe(
      Context.add(ServiceMemory, {
        ...memory,
        allocate: (request) =>
          Effect.tap(memory.allocate(request), () =>
            Effect.acquireRelease(
              Effect.sync(() => regions.push(request.purpose._tag)),
              () => Effect.sync(() => regions.splice(regions.indexOf(request.purpose._tag), 1))
            ))
      })
    )
  })
)

/** Virtual machines over an adversary over Simulated, whose memory is counted. */
export const machinesOver = <Out, E, In>(
  adversary: Layer.Layer<Out, E, In>,
  options: {
    readonly simulated?: Simulated.SimulatedOptions
    readonly machines?: Layer.Layer<VirtualMachine, never, Hypervisor>
  } = {}
) =>
  (options.machines ?? VirtualMachines.layer).pipe(
    Layer.provideMerge(adversary),
    Layer.provideMerge(counted),
    Layer.provideMerge(Simulated.layerWith(options.simulated ?? {}))
  )

/** The VMs that the hypervisor still has, of the first few ids. */
export const vmsLeft: Effect.Effect<ReadonlyArray<number>, never, HypercallGate> = Effect.gen(function*() {
  const gate = yield* HypercallGate
  const left: Array<number> = []
  for (let id = 1; id <= 8; id++) {
    // Only a VM that is there can be paused, in whatever state it is.
    if ((yield* gate.call(HypercallId.PauseVm, BigInt(id), 0n)) >= 0) left.push(id)
  }
  return left
})

/** What is left of VMs whose scopes are closed: nothing. */
export const leftovers = Effect.gen(function*() {
  const given = yield* Given
  return { vms: yield* vmsLeft, memory: given.regions().filter((purpose) => purpose !== "HypercallStructures") }
})
export const nothing = { vms: [], memory: [] }

const PORTS = 0x100
const MMIO = 0xe000_0000

/** Every kind of access, on each vCPU at addresses of its own. */
const guestOf = (vcpu: number): ReadonlyArray<GuestProgram.OperationInput> => {
  const port = PORTS + vcpu * 0x10
  const address = MMIO + vcpu * 0x100
  return [
    { _tag: "PortOut", port, size: 1, value: 0x5a },
    { _tag: "PortIn", port, size: 1 },
    { _tag: "Keep" },
    { _tag: "PortOut", port: port + 2, size: 2, value: 0x1234 },
    { _tag: "Loop", times: 3, body: [{ _tag: "PortIn", port: port + 4, size: 4 }, { _tag: "Keep" }] },
    { _tag: "StringOut", port: port + 8, size: 2, bytes: Uint8Array.of(1, 2, 3, 4, 5, 6) },
    { _tag: "StringIn", port: port + 8, size: 1, count: 5 },
    { _tag: "Store", address, size: 4, value: 0xdead_beef },
    { _tag: "Load", address, size: 2 },
    { _tag: "Keep" },
    { _tag: "Load", address: address + 1, size: 1 },
    { _tag: "Keep" },
    { _tag: "PortIn", port: 0x500, size: 4 },
    { _tag: "Keep" },
    // The address register of PCI is the VM's, so only one vCPU uses it.
    ...(vcpu === 0
      ? [
        { _tag: "PortOut", port: 0xcf8, size: 4, value: 0x8000_1810 },
        { _tag: "PortOut", port: 0xcfc, size: 4, value: 0xfee0_0000 },
        { _tag: "PortIn", port: 0xcfe, size: 2 },
        { _tag: "Keep" }
      ] as const
      : [])
  ]
}

/** Two vCPUs, which is also two slots that are used and fourteen that are not. */
export const guests = Result.getOrThrow(GuestProgram.assembleAll([guestOf(0), guestOf(1)]))

/** The same for one vCPU, for hypervisors that have no more. */
export const guest = Result.getOrThrow(GuestProgram.assemble(guestOf(0)))

/** The requests of a run by vCPU, for which order between vCPUs is not the same in every run. */
export class Asked {
  readonly byVcpu: [Array<string>, Array<string>] = [[], []]
  /** Every request as it came, also from vCPUs that there are not. */
  readonly requests: Array<IoRequest> = []
  /** vCPUs of which a request was handled while another of theirs was. */
  readonly overlapping: Array<number> = []
}

/** Answers with a number that depends on all that its vCPU asked before; half of the answers come some turns later. */
export const device = (asked: Asked, slowTurns = 1) =>
  Effect.gen(function*() {
    const { io } = yield* Machine
    const handled = new Set<number>()
    const handle = (request: IoRequest): Effect.Effect<IoValue> =>
      Effect.suspend(() => {
        const { vcpu } = request
        asked.requests.push(request)
        if (handled.has(vcpu)) asked.overlapping.push(vcpu)
        const own = asked.byVcpu[vcpu as 0 | 1]
        own.push(brief(request))
        let hash = 17
        for (const each of own) for (const char of each) hash = Math.imul(hash, 31) + char.charCodeAt(0) >>> 0
        const value = request._tag === "MmioRead" ? BigInt(hash) : hash
        if (own.length % 2 === 0) return Effect.succeed(value)
        handled.add(vcpu)
        return Effect.ensuring(Effect.as(turns(slowTurns), value), Effect.sync(() => handled.delete(vcpu)))
      })
    yield* io.register({
      name: "device",
      ranges: [ports(PORTS, PORTS + 0x1f), mmio(MMIO, MMIO + 0xfff), pciFunction(0, 3, 0)],
      handle
    })
  })

/** What the guests can tell of a run, and what their device was asked. */
export const runGuests = Effect.gen(function*() {
  const asked = new Asked()
  const { end, vcpus } = yield* GuestRun.runAll(guests, device(asked))
  return { end: end._tag, results: vcpus.map(({ results }) => [...results]), asked: asked.byVcpu }
})

/** The same without an adversary. */
export const undisturbed = runGuests.pipe(
  Effect.provide(VirtualMachines.layer.pipe(Layer.provideMerge(Simulated.layer)), { local: true })
)
