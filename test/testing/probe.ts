/**
 * Devices for comparing hypervisors: what they answer depends on the order of accesses and on nothing else, and some of
 * them let the guest wait.
 */
import { Effect } from "effect"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import { Machine } from "../../src/services/Machine.ts"

/** Around the end of a page, which wide accesses cross. */
export const MMIO = { start: 0xe000_0fc0, end: 0xe000_103f }
export const PORTS = { start: 0x40, end: 0x1ff }

/** How a device lets the guest wait, by the low bits of its address: not at all, for a turn, for guest time. */
const wait = (place: number): Effect.Effect<void> | undefined => {
  switch (place & 7) {
    case 3:
      return Effect.yieldNow
    case 5:
      return Effect.sleep("3 micros")
    default:
      return undefined
  }
}

/**
 * Ports answer with what was asked of them so far; memory gives back each byte that was stored, in one range for the
 * probe and one right behind RAM.
 */
export const probes = Effect.gen(function*() {
  const machine = yield* Machine
  let state = 0x1234_5678
  yield* machine.io.register({
    name: "ports",
    ranges: [IoRange.ports(PORTS.start, PORTS.end + 3)],
    handle: (request) => {
      if (request._tag !== "PortRead" && request._tag !== "PortWrite") return Effect.succeed(0)
      const given = request._tag === "PortWrite" ? request.value : 0
      state = Math.imul(state ^ given ^ request.port << 8 ^ request.size, 0x9e37_79b1) >>> 0
      const answer = Effect.succeed(state)
      const waiting = wait(request.port)
      return waiting === undefined ? answer : Effect.andThen(waiting, answer)
    }
  })

  yield* memory("memory", MMIO.start, MMIO.end)
  yield* memory("behind RAM", machine.memoryBytes, machine.memoryBytes + 0xff)
})

const memory = (name: string, start: number, end: number) =>
  Effect.gen(function*() {
    const machine = yield* Machine
    const bytes = Uint8Array.from({ length: end - start + 1 }, (_, index) => index * 37 + 11)
    const touch = (request: IoRequest): IoValue => {
      if (request._tag !== "MmioRead" && request._tag !== "MmioWrite") return undefined
      const offset = request.address - start
      let value = 0n
      for (let i = 0; i < request.size; i++) {
        if (request._tag === "MmioWrite") bytes[offset + i] = Number(request.value >> BigInt(8 * i) & 0xffn)
        value |= BigInt(bytes[offset + i]!) << BigInt(8 * i)
      }
      return value
    }
    yield* machine.io.register({
      name,
      ranges: [IoRange.mmio(start, end)],
      handle: (request) => {
        const answer = Effect.sync(() => touch(request))
        const waiting = "address" in request ? wait(request.address) : undefined
        return waiting === undefined ? answer : Effect.andThen(waiting, answer)
      }
    })
  })
