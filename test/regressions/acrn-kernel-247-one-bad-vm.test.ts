/**
 * ACRN kernel pull request 247 (and the loop as it still is in Linux 6.1). The worker that looks for requests went through
 * the list of VMs and left the loop at the first one that had no page of requests, such as a VM whose creation had failed.
 * The VMs after it in the list hung, though nothing was wrong with them.
 *
 * Here a page that cannot be looked at, or an upcall handler that fails, is passed by: every other VM is served in the
 * same round, and what went wrong is still raised afterwards.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { ports } from "../../src/domain/IoRange.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { ServiceMemory, type ServicePage } from "../../src/services/ServiceMemory.ts"
import * as Upcalls from "../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { constant } from "../support/dispatcher.ts"
import { FakePage } from "../support/FakePage.ts"

/** A hypervisor whose upcalls are the test's, and whose page for the first VM fails once it is told to. */
const withBadPage = Effect.gen(function*() {
  const simulated = yield* Layer.build(Simulated.layerWith({}))
  const memory = Context.get(simulated, ServiceMemory)
  const upcalls = Upcalls.make()
  const pages: Array<FakePage> = []
  const state = { isBroken: false }
  const broken = (page: FakePage): ServicePage => ({
    load32: (offset) => {
      if (state.isBroken) throw new Error("the page is gone")
      return page.load32(offset)
    },
    store32: (offset, value) => page.store32(offset, value),
    fetchRequest: (offset, words) => page.fetchRequest(offset, words),
    storeRequest: (offset, words) => page.storeRequest(offset, words)
  })
  const watched = ServiceMemory.of({
    ...memory,
    page: () => {
      const page = new FakePage()
      pages.push(page)
      return Result.succeed(pages.length === 1 ? broken(page) : page)
    }
  })
  const hypervisor = simulated.pipe(
    Context.add(ServiceMemory, watched),
    Context.add(Upcalls.Upcalls, upcalls.service)
  )
  const machines = yield* Layer.build(VirtualMachine.layer.pipe(Layer.provide(Layer.succeedContext(hypervisor))))
  return { create: Context.get(machines, VirtualMachine.VirtualMachine).create, pages, raise: upcalls.raise, state }
})

describe("ACRN kernel 247: one bad VM stops the scan for all", () => {
  it.effect("a page that cannot be looked at: the VMs after it are served", () =>
    Effect.gen(function*() {
      const { create, pages, raise, state } = yield* withBadPage
      for (let i = 0; i < 3; i++) {
        const vm = yield* create({ memoryBytes: 4096 })
        yield* vm.io.register(constant("client", 0x40 + i, ports(0x100, 0x1ff)))
      }
      for (const page of pages) page.submit(0, {})
      state.isBroken = true
      assert.throws(() => raise(undefined), "the page is gone")
      assert.deepStrictEqual(pages.slice(1).map((page) => page.answer(0)[0]), [0x41, 0x42])
      state.isBroken = false
      raise(undefined)
      assert.strictEqual(pages[0]!.answer(0)[0], 0x40, "and it too, once it can be looked at")
    }).pipe(Effect.scoped))

  it.effect("an upcall handler that fails: the handlers after it are called", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const called: Array<string> = []
      const handler = (name: string) => () => {
        called.push(name)
        if (name !== "good" && isBroken) throw new Error(name)
      }
      let isBroken = false
      for (const name of ["bad", "worse", "good"]) yield* service.register(handler(name))
      called.length = 0
      isBroken = true
      assert.throws(() => raise({ vmId: 1, vcpu: 0 }))
      assert.deepStrictEqual(called, ["bad", "worse", "good"])
    }).pipe(Effect.scoped))
})
