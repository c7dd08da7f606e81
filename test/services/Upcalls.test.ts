import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import * as Upcalls from "../../src/services/Upcalls.ts"

const hint = (vcpu: number): Upcalls.UpcallHint => ({ vmId: 1, vcpu })

describe("Upcalls", () => {
  it.effect("arming scans once, without a hint; then each upcall comes as it is raised", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const heard: Array<Upcalls.UpcallHint | undefined> = []
      raise(hint(9))
      yield* service.register((each) => heard.push(each))
      assert.deepStrictEqual(heard, [undefined], "what was raised before arming is not missed")
      raise(hint(0))
      raise(undefined)
      raise(hint(1))
      assert.deepStrictEqual(heard, [undefined, hint(0), undefined, hint(1)])
    }))

  it.effect("nothing is heard after the scope closed", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const heard: Array<Upcalls.UpcallHint | undefined> = []
      yield* Effect.scoped(service.register((each) => heard.push(each)))
      raise(hint(0))
      assert.deepStrictEqual(heard, [undefined])
    }))

  it.effect("it is not re-entrant: upcalls inside a handler are served after it, merged into one scan", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const log: Array<string> = []
      let more = 3
      yield* service.register((each) => {
        log.push(`in ${each?.vcpu}`)
        if (each !== undefined) {
          raise(hint(7))
          raise(hint(8))
        } else if (more-- > 1) raise(undefined)
        log.push(`out ${each?.vcpu}`)
      })
      log.length = 0
      more = 2
      raise(hint(0))
      assert.deepStrictEqual(log, ["in 0", "out 0", "in undefined", "out undefined", "in undefined", "out undefined"])
    }))

  it.effect("a handler that throws keeps no other from hearing, and the next upcall comes to all", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const heard: Array<string> = []
      yield* service.register((each) => {
        if (each !== undefined) throw new Error("a handler that must not throw")
      })
      yield* service.register((each) => heard.push(`b ${each?.vcpu}`))
      heard.length = 0
      assert.throws(() => raise(hint(0)), "a handler that must not throw")
      assert.throws(() => raise(hint(1)), "a handler that must not throw")
      assert.deepStrictEqual(heard, ["b 0", "b 1"])
    }))

  it.effect("every handler hears an upcall that came inside one of them", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const heard: Array<string> = []
      let isFirst = true
      yield* service.register((each) => {
        heard.push(`a ${each?.vcpu}`)
        if (each !== undefined && isFirst) {
          isFirst = false
          raise(hint(1))
        }
      })
      yield* service.register((each) => heard.push(`b ${each?.vcpu}`))
      heard.length = 0
      raise(hint(0))
      assert.deepStrictEqual(heard, ["a 0", "b 0", "a undefined", "b undefined"])
    }))

  it.effect("a handler may register another, and end one, while it runs", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const heard: Array<string> = []
      const scope = yield* Scope.make()
      yield* Scope.provide(service.register(() => heard.push("old")), scope)
      let once = true
      yield* service.register(() => {
        heard.push("self")
        if (!once) return
        once = false
        Effect.runSync(Scope.close(scope, Exit.void))
        Effect.runSync(Scope.provide(service.register(() => heard.push("new")), Scope.makeUnsafe()))
      })
      heard.length = 0
      raise(hint(0))
      assert.deepStrictEqual(heard, ["self", "new"])
    }))

  it.effect("one handler that is registered twice is two registrations", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      let heard = 0
      const handler = () => {
        heard++
      }
      const first = yield* Scope.make()
      yield* Scope.provide(service.register(handler), first)
      yield* service.register(handler)
      yield* Scope.close(first, Exit.void)
      heard = 0
      raise(hint(0))
      assert.strictEqual(heard, 1)
    }))

  it.effect("a handler that throws does not stop the upcalls after it", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      let heard = 0
      let isBad = false
      yield* service.register(() => {
        heard++
        if (isBad) throw new Error("bad handler")
      })
      isBad = true
      assert.throws(() => raise(hint(0)), "bad handler")
      isBad = false
      raise(hint(0))
      assert.strictEqual(heard, 3)
    }))

  it.effect("the stream gives the scan of its arming and then each hint", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(service.stream, 3)), {
        startImmediately: true
      })
      raise(hint(3))
      raise(hint(4))
      assert.deepStrictEqual(yield* Fiber.join(taking), [undefined, hint(3), hint(4)])
    }))

  it.effect("a slow reader of the stream keeps the newest 1024", () =>
    Effect.gen(function*() {
      const { raise, service } = Upcalls.make()
      const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(service.stream, 1025)), {
        startImmediately: true
      })
      for (let i = 0; i < 3000; i++) raise(hint(i))
      // The first was taken before the rest came.
      const taken = yield* Fiber.join(taking)
      assert.deepStrictEqual(taken, [undefined, ...Array.from({ length: 1024 }, (_, i) => hint(3000 - 1024 + i))])
    }))
})
