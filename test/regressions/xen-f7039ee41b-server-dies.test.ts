/**
 * Xen commit f7039ee41b. A device model was killed while a vCPU waited for it. The vCPU was woken, but the record of its
 * request stayed as it was, and every later access of that vCPU was refused because of it, some of them again and again.
 *
 * Here a client whose scope is closed holds nothing afterwards: its request reads all-ones, the slot is the hypervisor's
 * again, and the vCPU's next request is served by whoever owns the address then.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { ports } from "../../src/domain/IoRange.ts"
import { ALL_ONES, constant, makeDispatcher } from "../support/dispatcher.ts"
import { Processing } from "../support/FakePage.ts"

const RANGE = ports(0x100, 0x1ff)

describe("Xen f7039ee41b: a server dies with a request in flight", () => {
  it.effect("its request is completed with all-ones, and the slot serves the next one", () =>
    Effect.gen(function*() {
      const { ask, fake, io, notified, take } = makeDispatcher()
      const scope = yield* Scope.make()
      yield* Scope.provide(io.register({ name: "dies", ranges: [RANGE], handle: () => Effect.never }), scope)
      assert.isUndefined(ask({ size: 4 }, 0))
      assert.isUndefined(ask({ size: 2 }, 1))
      assert.strictEqual(fake.state(0), Processing)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([take(0), take(1)], [ALL_ONES, 0xffff])
      assert.deepStrictEqual(notified, [0, 1])
      assert.deepStrictEqual((yield* io.recentEvents).map(({ _tag }) => _tag), ["Abandoned", "Abandoned"])
      assert.strictEqual(ask({ size: 1 }), 0xff, "nobody's for now")
      yield* io.register(constant("follows", 5, RANGE))
      assert.strictEqual(ask({ size: 1 }), 5)
    }))

  it.effect("one client's death leaves the requests of the others alone", () =>
    Effect.gen(function*() {
      const { ask, fake, io, take } = makeDispatcher()
      const scope = yield* Scope.make()
      yield* Scope.provide(io.register({ name: "dies", ranges: [RANGE], handle: () => Effect.never }), scope)
      yield* io.register({ name: "lives", ranges: [ports(0x200, 0x2ff)], handle: () => Effect.never })
      ask({ address: 0x200 }, 0)
      ask({ address: 0x100 }, 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(take(1), 0xff)
      assert.strictEqual(fake.state(0), Processing)
    }))
})
