/**
 * Guests that number what they do, and the books of the device they do it to: an access that is lost, repeated or
 * answered wrongly is seen on both sides.
 *
 * Each vCPU writes 1, 2, 3, ... to its own port, MMIO register and string port, and reads back after each round how far
 * the device has counted. Before each access it leaves the number in memory. It goes on until an answer has its top bit
 * set, and halts.
 */
import { Effect } from "effect"
import * as IoRange from "../../../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../../../src/domain/VcpuRegisters.ts"
import { Machine } from "../../../../src/services/Machine.ts"
import { VirtualMachine } from "../../../../src/services/VirtualMachine.ts"
import type { CreatedVm, Vm } from "../../../../src/services/Vm.ts"
import * as g from "../../../support/guest.ts"

const PORTS = 0x1000
const MMIO = 0xe000_0000
const RAM_BYTES = 0x2_0000
/** Where the program of vCPU 0 is. */
export const CODE = 0x1000
const STACKS = 0x1_8000
const STRINGS = 0x1_0000
/** Of each vCPU: the number that it wrote last, whether it got a wrong answer, and which. */
const COUNTS = 0x8000
const WRONG = 0x9000
const ANSWERS = 0xa000
const STRING_LENGTH = 3
const LAST = 0x8000_0000

const le32 = (value: number): g.Code => g.mov(0, value).slice(1)
/** MOV [address], EBX */
const storeNumber = (address: number): g.Code => [0x89, 0x1d, ...le32(address)]
/** MOV EAX, EBX; OUT DX, EAX */
const writeNumber: g.Code = [0x89, 0xd8, 0xef]
/** INC EBX */
const next: g.Code = [0x43]

const program = (vcpu: number): Uint8Array => {
  const port = PORTS + 4 * vcpu
  const count = COUNTS + 4 * vcpu
  const string = STRINGS + 0x100 * vcpu
  const write = [
    ...next,
    ...storeNumber(count),
    ...g.mov(g.Reg.edx, port),
    ...writeNumber,
    ...next,
    ...storeNumber(count),
    ...storeNumber(MMIO + 4 * vcpu)
  ]
  const fill = Array.from({ length: STRING_LENGTH }, (_, i) => [...next, ...storeNumber(string + 4 * i)]).flat()
  const writeString = [...fill, ...storeNumber(count), ...g.repOut(port, string, STRING_LENGTH, 4)]
  const read = g.inp(port, 4)
  // MOV ECX, EAX; AND ECX, 0x7fffffff; CMP ECX, EBX; JNE wrong; TEST EAX, EAX; JNS round
  const check = [0x89, 0xc1, 0x81, 0xe1, ...le32(LAST - 1), 0x39, 0xd9]
  const round = [...write, ...writeString, ...read, ...check]
  const again = [0x85, 0xc0, 0x0f, 0x89, ...le32(-(round.length + 2 + 8))]
  // JNE over what is left of the round, and the stop at its end.
  return g.code(
    round,
    [0x75, again.length + g.stop.length],
    again,
    g.stop,
    g.store(ANSWERS + 4 * vcpu),
    g.storeImmediate(WRONG + 4 * vcpu, 1),
    g.stop
  )
}

/** What a device saw of one vCPU. */
interface Account {
  /** The number that it wrote last. */
  count: number
  reads: number
}

export class CountingDevice {
  readonly accounts: ReadonlyArray<Account>
  readonly problems: Array<string> = []
  /** Whether guests are told to halt. */
  isEnding = false
  /** The VM is paused: nobody shall ask. */
  isPaused = false
  /** What is asked from now on is never answered. */
  isMute = false
  isAskedInVain = false
  private requests = 0

  constructor(vcpus: number) {
    this.accounts = Array.from({ length: vcpus }, () => ({ count: 0, reads: 0 }))
  }

  /** Whether every vCPU has made some accesses. */
  get isUnderLoad(): boolean {
    return this.accounts.every(({ reads }) => reads > 1)
  }

  readonly attach = Effect.gen({ self: this }, function*() {
    const { io, onReset } = yield* Machine
    yield* onReset(Effect.sync(() => {
      for (const account of this.accounts) account.count = account.reads = 0
    }))
    const last = 4 * this.accounts.length - 1
    yield* io.register({
      name: "counter",
      ranges: [IoRange.ports(PORTS, PORTS + last), IoRange.mmio(MMIO, MMIO + last)],
      handle: (request) => this.handle(request)
    })
  })

  /** Most requests are answered at once, some in a later turn, few later still. */
  private handle(request: IoRequest): Effect.Effect<IoValue> {
    if (this.isMute) {
      this.isAskedInVain = true
      return Effect.never
    }
    const answer = this.take(request)
    const requests = ++this.requests
    if (requests % 97 === 0) return Effect.as(Effect.sleep("100 micros"), answer)
    return requests % 7 === 0 ? Effect.as(Effect.yieldNow, answer) : Effect.succeed(answer)
  }

  private take(request: IoRequest): IoValue {
    const { vcpu } = request
    const account = this.accounts[vcpu]
    if (account === undefined) {
      this.problems.push(`a request of vCPU ${vcpu}`)
      return undefined
    }
    if (this.isPaused) this.problems.push(`vCPU ${vcpu} asked while its VM was paused`)
    const place = "port" in request ? request.port - PORTS : "address" in request ? request.address - MMIO : -1
    if (place !== 4 * vcpu || request.size !== 4) this.problems.push(`vCPU ${vcpu}: ${JSON.stringify(request)}`)
    if ("value" in request) {
      const value = Number(request.value)
      if (value !== account.count + 1) this.problems.push(`vCPU ${vcpu} wrote ${value} after ${account.count}`)
      account.count = value
      return undefined
    }
    account.reads++
    return this.isEnding ? (LAST + account.count) : account.count
  }
}

/** A VM of such guests, not started. */
export const make = (vcpus: number) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine
    const vm: CreatedVm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus })
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const entry = CODE + 0x1000 * vcpu
      yield* vm.memory.write(entry, program(vcpu))
      yield* vm.setRegisters(vcpu, VcpuRegisters.flat32({ entry, stack: STACKS + 0x1000 * vcpu }))
    }
    const device = new CountingDevice(vcpus)
    yield* vm.attach(device.attach)
    return { vm, device }
  })

/** What the guests of a VM say of themselves that does not fit the device's books; the VM must have halted. */
export const disagreements = (vm: Vm, device: CountingDevice) =>
  Effect.gen(function*() {
    const problems = [...device.problems]
    for (const [vcpu, { count }] of device.accounts.entries()) {
      const counted = yield* vm.memory.read32(COUNTS + 4 * vcpu)
      const wrong = yield* vm.memory.read32(WRONG + 4 * vcpu)
      if (counted !== count) problems.push(`vCPU ${vcpu} counted ${counted}, its device ${count}`)
      const answer = yield* vm.memory.read32(ANSWERS + 4 * vcpu)
      if (wrong !== 0) problems.push(`vCPU ${vcpu} read ${answer} when it had counted ${counted}`)
    }
    return problems
  })
