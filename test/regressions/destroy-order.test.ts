/**
 * Linux `drivers/virt/acrn`. The hypervisor knows a VM's memory and its page of requests by physical address. If they are
 * freed before it has forgotten the VM, a vCPU writes into what belongs to somebody else by then. The driver's
 * `acrn_vm_destroy` asks the hypervisor first; its release of the device file ignores that this can be refused, and frees
 * the VM, which is still in the list of VMs, all the same.
 *
 * Here closing a VM's scope pauses and destroys it in the hypervisor, and devices and memory are released after that. When
 * the hypervisor refuses, the memory is kept: better lost than given to another VM.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as g from "../support/guest.ts"
import { boot } from "../support/machines.ts"

const EPERM = -1

/**
 * Makes a VM with a device, tries to give it more memory, and closes it; what was done in what order. `refuses` is a
 * hypercall that is refused from when the VM is made.
 */
const lifeOf = (refuses?: number) =>
  Effect.gen(function*() {
    const simulated = yield* Layer.build(Simulated.layerWith({}))
    const gate = Context.get(simulated, HypercallGate)
    const memory = Context.get(simulated, ServiceMemory)
    const log: Array<string> = []
    let isMade = false
    const hypervisor = simulated.pipe(
      Context.add(HypercallGate, {
        ...gate,
        call: (id, param1, param2) =>
          Effect.suspend(() => {
            if (id === HypercallId.DestroyVm) log.push("destroyed")
            return isMade && id === refuses ? Effect.succeed(EPERM) : gate.call(id, param1, param2)
          })
      }),
      Context.add(ServiceMemory, {
        ...memory,
        allocate: (request) =>
          Effect.tap(memory.allocate(request), () =>
            request.purpose._tag === "HypercallStructures"
              ? Effect.void
              : Effect.addFinalizer(() => Effect.sync(() => log.push(request.purpose._tag))))
      })
    )
    const machines = yield* Layer.build(VirtualMachine.layer.pipe(Layer.provide(Layer.succeedContext(hypervisor))))
    const scope = yield* Scope.make()
    const vm = yield* boot(g.code(g.spin)).pipe(Effect.provideContext(machines), Scope.provide(scope))
    yield* vm.attach(Effect.addFinalizer(() => Effect.sync(() => log.push("device"))))
    isMade = true
    yield* Effect.exit(vm.mapMemory({ guestAddress: 0x10_0000, bytes: 0x1000 }))
    yield* vm.start
    yield* Scope.close(scope, Exit.void)
    return log
  }).pipe(Effect.scoped)

describe("resources go before the hypervisor has forgotten them", () => {
  it.effect("the VM is destroyed first, then its devices go, then its memory", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* lifeOf(), ["destroyed", "device", "GuestRam", "GuestRam", "IoRequestPage"])
    }))

  for (const [name, id] of [["destroy", HypercallId.DestroyVm], ["pause", HypercallId.PauseVm]] as const) {
    it.effect(`a hypervisor that refuses to ${name} the VM keeps its memory`, () =>
      Effect.gen(function*() {
        const log = yield* lifeOf(id)
        assert.deepStrictEqual(log.filter((entry) => entry !== "destroyed"), ["device"])
      }))
  }

  it.effect("RAM that may be mapped, because the hypervisor neither maps nor unmaps it, is kept until the VM is gone", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* lifeOf(HypercallId.SetMemoryRegions), [
        "destroyed",
        "device",
        "GuestRam",
        "GuestRam",
        "IoRequestPage"
      ])
    }))
})
