/**
 * Ports of a chip with an 8-bit data bus. Wider accesses are cut as the ISA bus does it: one byte cycle per port, lowest
 * port first. (An access that runs over the end of a client's ports never gets here.)
 */
import * as Effect from "effect/Effect"
import type { IoRequest, IoValue } from "../../../domain/IoRequest.ts"

type Answer = Effect.Effect<IoValue>

// An Effect that is already done needs no fiber, and one made beforehand needs no memory either.
const bytes: ReadonlyArray<Answer> = Array.from({ length: 256 }, (_, byte) => Effect.succeed(byte))

/** What a read of a port that nothing drives gives, at any size; also the answer to a write. */
export const allOnes: Answer = Effect.void

/** A handler over `read` and `write`, which get the port's number and a byte of 0 to 255. */
export const bytePorts = (
  read: (port: number) => number,
  write: (port: number, byte: number) => void
) =>
(request: IoRequest): Answer => {
  switch (request._tag) {
    case "PortRead": {
      const { port, size } = request
      if (size === 1) return bytes[read(port)]!
      let value = 0
      for (let i = 0; i < size; i++) value |= read(port + i) << i * 8
      return Effect.succeed(value >>> 0)
    }
    case "PortWrite": {
      const { port, size, value } = request
      for (let i = 0; i < size; i++) write(port + i, value >>> i * 8 & 0xff)
      return allOnes
    }
    default:
      return allOnes
  }
}
