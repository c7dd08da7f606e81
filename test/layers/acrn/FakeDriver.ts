/**
 * A fake of /dev/acrn_hsm and of what the layer needs beside it: every request is recorded, and answered as a test says.
 */
import { Result } from "effect"
import type { HsmIoctlName } from "../../../src/domain/abi/HsmIoctl.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import { HsmBackend, type HsmBackendOptions } from "../../../src/layers/acrn/HsmBackend.ts"
import type { HsmFile } from "../../../src/layers/acrn/HsmFile.ts"
import { backingFor, UserSpace } from "../../../src/layers/acrn/UserMemory.ts"
import type { ReadyThread, WaiterOptions } from "../../../src/layers/acrn/Waiters.ts"
import type { Libc } from "../../../src/layers/native/Libc.ts"
import { makeServiceMemory } from "../../../src/services/AddressSpace.ts"
import { makeGate } from "../../../src/services/HypercallBackend.ts"

export interface Asked {
  readonly fd: number
  readonly name: HsmIoctlName
  readonly argument: number | Uint8Array | undefined
}

export const profile = {
  name: "fake",
  maxVcpus: 16,
  maxRamBytes: 2 ** 30,
  addressBits: 48,
  portWidths: [1, 2, 4],
  mmioWidths: [1, 2, 4, 8],
  mapping: "Pages",
  modes: ["Real", "Protected32", "Long64"],
  startsAllVcpus: false
} as const

/** What happened, in order: requests by name, and what the waiting threads were told. */
export class FakeDriver {
  readonly asked: Array<Asked> = []
  readonly log: Array<string> = []
  readonly waiting = new Map<number, WaiterOptions>()
  readonly advised: Array<readonly [address: number, bytes: number]> = []
  readonly space = new UserSpace()
  readonly upcalls: Array<unknown> = []
  /** Results of requests, 0 when none is named. */
  readonly results: Partial<Record<HsmIoctlName, number>> = {}
  openResult = 0
  vcpus = 1
  openFiles = 0
  released = 0
  private nextFd = 10
  private nextAddress = 0x7f00_0000_0000
  private readonly addresses = new WeakMap<ArrayBufferLike, number>()

  readonly openHsm = (): HsmFile | number => {
    if (this.openResult < 0) return this.openResult
    const fd = this.nextFd++
    this.openFiles++
    return {
      fd,
      request: (name, argument) => this.answer(fd, name, argument),
      close: () => {
        this.openFiles--
        this.log.push("close")
      }
    }
  }

  readonly libc: Pick<Libc, "addressOf" | "forbidHugePages"> = {
    addressOf: (memory) => {
      const buffer = memory.buffer
      let base = this.addresses.get(buffer)
      if (base === undefined) {
        // As an allocator's: not the begin of a page.
        base = this.nextAddress + 16
        this.nextAddress += Math.ceil(buffer.byteLength / 4096 + 1) * 4096
        this.addresses.set(buffer, base)
      }
      return base + memory.byteOffset
    },
    forbidHugePages: (address, bytes) => {
      this.advised.push([address, bytes])
    }
  }

  readonly memory = makeServiceMemory(
    this.space,
    (bytes, purpose) => Result.succeed(backingFor(this.libc, bytes, purpose))
  )

  backend(options: Partial<HsmBackendOptions> = {}): HsmBackend {
    return new HsmBackend({
      device: "/dev/acrn_hsm",
      processors: undefined,
      names: [],
      vmFlags: 0n,
      mmio: [],
      libc: this.libc,
      openHsm: this.openHsm,
      space: this.space,
      raise: (hint) => this.upcalls.push(hint),
      waiters: { take: () => Promise.resolve(this.thread()) },
      ...options
    })
  }

  gate(backend: HsmBackend) {
    return makeGate(profile, this.memory, backend)
  }

  names(): Array<HsmIoctlName> {
    return this.asked.map(({ name }) => name)
  }

  private thread(): ReadyThread {
    return {
      release: () => {
        this.released++
      },
      wait: (options) => {
        this.waiting.set(options.fd, options)
        this.log.push("wait")
        return {
          finished: (vcpu) => this.log.push(`finished ${vcpu}`),
          allFinished: () => this.log.push("all finished"),
          leave: () => {
            this.waiting.delete(options.fd)
            this.log.push("leave")
          },
          gone: Promise.resolve()
        }
      }
    }
  }

  private answer(fd: number, name: HsmIoctlName, argument: number | Uint8Array | undefined): number {
    this.asked.push({ fd, name, argument: argument instanceof Uint8Array ? argument.slice() : argument })
    this.log.push(name)
    const result = this.results[name] ?? 0
    if (name === "CreateVm" && result >= 0 && argument instanceof Uint8Array) {
      const creation = Result.getOrThrow(VmCreation.decode(argument))
      Result.getOrThrow(VmCreation.encodeInto({ ...creation, vmid: fd - 9, vcpuNum: this.vcpus }, argument))
    }
    return result
  }
}
