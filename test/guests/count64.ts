/** Runs guests/count64: its image, its registers and the devices that it counts in. */
import { Deferred, Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as DebugExit from "../../src/layers/devices/DebugExit.ts"
import * as FlatBinary from "../../src/layers/images/FlatBinary.ts"
import { Machine } from "../../src/services/Machine.ts"
import { VirtualMachine } from "../../src/services/VirtualMachine.ts"

const IMAGE = readFileSync(join(import.meta.dirname, "../../guests/count64/count64.bin"))
const LOAD_ADDRESS = 0x1000
const MEMORY_BYTES = 0x1_0000

const PORT_BLOCKS = 0x500
const PORTS_OF_VCPU = 0x10
const MEMORY_COUNTS = 0xe000_0000
const MEMORY_OF_VCPU = 0x40
const MAX_VCPUS = 16

/** A vCPU's number is in the highest digit of all that it writes. */
export const tagOf = (vcpu: number): number => vcpu * 2 ** 28

interface Options {
  readonly vcpus: number
  readonly rounds: number
  /** May change what a read gives. */
  readonly spoil?: (request: IoRequest, value: bigint) => bigint
  /** Every so many rounds no vCPU goes on before the port writes of all are there. */
  readonly meetEvery?: number
}

/** Where as many as are awaited wait for each other, once for each number. */
const meetings = (awaited: number) => {
  const open = new Map<number, { arrived: number; readonly all: Deferred.Deferred<void> }>()
  let complete = 0
  return {
    complete: () => complete,
    meet: (nth: number) =>
      Effect.suspend(() => {
        const meeting = open.get(nth) ?? { arrived: 0, all: Deferred.makeUnsafe<void>() }
        open.set(nth, meeting)
        meeting.arrived++
        if (meeting.arrived < awaited) return Deferred.await(meeting.all)
        complete++
        return Deferred.succeed(meeting.all, undefined)
      })
  }
}

/** Registers that give back what was stored. */
const registers = ({ meetEvery, spoil = (_, value) => value, vcpus }: Options) =>
  Effect.gen(function*() {
    const { io } = yield* Machine
    const { complete, meet } = meetings(vcpus)
    // Ports and addresses have no number in common here.
    const stored = new Map<number, bigint>()
    yield* io.register({
      name: "counters",
      ranges: [
        IoRange.ports(PORT_BLOCKS, PORT_BLOCKS + MAX_VCPUS * PORTS_OF_VCPU - 1),
        IoRange.mmio(MEMORY_COUNTS, MEMORY_COUNTS + MAX_VCPUS * MEMORY_OF_VCPU - 1)
      ],
      handle: (request) => {
        const at = "port" in request ? request.port : "address" in request ? request.address : -1
        if ("value" in request) stored.set(at, BigInt(request.value))
        const value = spoil(request, stored.get(at) ?? 0n)
        const answer = Effect.succeed("port" in request ? Number(value) : value)
        if (meetEvery === undefined || request._tag !== "PortWrite" || at % PORTS_OF_VCPU !== 0) return answer
        const round = request.value % tagOf(1)
        return round % meetEvery === 0 ? Effect.andThen(meet(round), answer) : answer
      }
    })
    return {
      /** How often all of them met. */
      meetings: complete,
      port: (vcpu: number) => stored.get(PORT_BLOCKS + vcpu * PORTS_OF_VCPU),
      outcome: (vcpu: number) => stored.get(PORT_BLOCKS + vcpu * PORTS_OF_VCPU + 4),
      memory: (vcpu: number) => stored.get(MEMORY_COUNTS + vcpu * MEMORY_OF_VCPU)
    }
  })

/** The guest on a VM of its own, to its end; `asked` is how many requests each vCPU made. */
export const run = (options: Options) =>
  Effect.scoped(Effect.gen(function*() {
    const { rounds, vcpus } = options
    const plan = yield* FlatBinary.plan({
      name: "count64.bin",
      bytes: IMAGE,
      address: LOAD_ADDRESS,
      mode: "Long64",
      memoryBytes: MEMORY_BYTES
    })
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: MEMORY_BYTES, vcpus })
    yield* vm.attach(DebugExit.make())
    const counts = yield* vm.attach(registers(options))
    const asked = Array.from({ length: vcpus }, () => 0)
    yield* vm.io.observe({
      onRequest: (_, { vcpu }) => {
        asked[vcpu]!++
      }
    })
    yield* vm.load(plan)
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const gprs = { rdi: BigInt(vcpu), rsi: BigInt(vcpus), rdx: BigInt(rounds) }
      yield* vm.setRegisters(
        vcpu,
        VcpuRegisters.long64({ entry: LOAD_ADDRESS, pageTables: Number(plan.registers.cr3), gprs })
      )
    }
    const running = yield* vm.start
    const end = yield* running.ended
    return { end, counts, asked }
  }))
