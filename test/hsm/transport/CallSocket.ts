/**
 * The two sockets of the glue in uml-glue, whose README has the protocol.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { createServer, type Server, type Socket } from "node:net"
import type { RawHypercall } from "../../../src/domain/Hypercall.ts"

const MESSAGE_BYTES = 24

/** Listens at `path` until the scope closes, and gives the one connection that comes. */
export const listen = (path: string): Effect.Effect<Deferred.Deferred<Socket>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const connected = yield* Deferred.make<Socket>()
    const sockets: Array<Socket> = []
    yield* Effect.acquireRelease(
      Effect.callback<Server>((resume) => {
        const server = createServer((socket) => {
          // The machine may end in the middle of a message; who waits for its end hears of it.
          socket.on("error", () => undefined)
          sockets.push(socket)
          Deferred.doneUnsafe(connected, Effect.succeed(socket))
        })
        server.listen(path, () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    )
    return connected
  })

/** The messages that come, each three words. */
export const messages = (socket: Socket): Effect.Effect<Queue.Queue<RawHypercall>> =>
  Effect.map(Queue.unbounded<RawHypercall>(), (queue) => {
    let rest: Buffer = Buffer.alloc(0)
    socket.on("data", (data) => {
      rest = rest.length === 0 ? data : Buffer.concat([rest, data])
      while (rest.length >= MESSAGE_BYTES) {
        Queue.offerUnsafe(queue, {
          id: Number(rest.readBigUInt64LE(0)),
          param1: rest.readBigUInt64LE(8),
          param2: rest.readBigUInt64LE(16)
        })
        rest = rest.subarray(MESSAGE_BYTES)
      }
    })
    return queue
  })

/** Answers a message, on which the whole machine waits. */
export const reply = (socket: Socket, result: number): void => {
  const word = Buffer.alloc(8)
  word.writeBigInt64LE(BigInt(result))
  socket.write(word)
}

// "acrn-uml"; as a number it is rounded, and still no hypercall's id.
const HELLO = Number(0x6c6d_752d_6e72_6361n)

/** Which of the kernel's file descriptors is its memory, if this is how the glue begins. */
export const memoryDescriptor = (first: RawHypercall): number | undefined =>
  first.id === HELLO ? Number(first.param1) : undefined
