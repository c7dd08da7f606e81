/**
 * Doorbells by KVM_IOEVENTFD: the kernel counts the guest's write in an eventfd and lets the vCPU go on.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { hex } from "../../../domain/Address.ts"
import { Errno } from "../../../domain/Errno.ts"
import { ADDRESS_SPACE_END, PORT_SPACE_END } from "../../../domain/Limits.ts"
import { type DoorbellPlace, Doorbells } from "../../../services/Hypervisor.ts"
import { doorbellOf, eventFd } from "../../native/eventFds.ts"
import type { Libc } from "../../native/Libc.ts"
import { refused } from "../../native/refused.ts"
import { IoEventFd, IoEventFdFlag } from "../abi/EventFds.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import type { Engine } from "../Engine.ts"
import { attach, type Engines, findVm } from "./Engines.ts"

const NAME = "KVM_IOEVENTFD"
const ENOSPC = 28
const ANY_LENGTH = 0

const widths = { Port: [1, 2, 4], Mmio: [1, 2, 4, 8] }

/** Why no guest could ever ring there. */
const problemOf = (engine: Engine, { address, bytes, match, space }: DoorbellPlace): string | undefined => {
  const end = space === "Port" ? PORT_SPACE_END : ADDRESS_SPACE_END
  if (!Number.isSafeInteger(address) || address < 0 || address + (bytes ?? 1) > end) {
    return `the place at ${hex(address)} is not in the space of ${space === "Port" ? "ports" : "guest addresses"}`
  }
  if (bytes !== undefined && !widths[space].includes(bytes)) {
    return `a write to ${space === "Port" ? "a port" : "memory"} is of ${widths[space].join(", ")} bytes, not ${bytes}`
  }
  if (match !== undefined && bytes === undefined) return "a value to match has a size; give it in bytes"
  if (match !== undefined && (match < 0n || match >> BigInt(bytes! * 8) !== 0n)) {
    return `no write of ${bytes} bytes carries ${match}; give a value that fits`
  }
  if (space === "Mmio" && engine.slots.isWritable(address)) {
    return `the guest has writable RAM at ${hex(address)}, where its writes stay; choose an address that is no RAM`
  }
  return undefined
}

const explain = (errno: number, { bytes }: DoorbellPlace): string => {
  switch (errno) {
    case Errno.EEXIST:
      return "another doorbell hears the same writes; close it first, or give each a size or a value of its own"
    case ENOSPC:
      return "the kernel has no room for another doorbell in this VM; close what is not needed any more"
    default:
      return bytes === undefined
        ? "this kernel has no doorbells for writes of any size; give the size in bytes"
        : "the kernel takes no doorbell there"
  }
}

const encode = (fd: number, { address, bytes, match, space }: DoorbellPlace, isOn: boolean): Uint8Array => {
  const flags = (space === "Port" ? IoEventFdFlag.PIO : 0) | (match === undefined ? 0 : IoEventFdFlag.DATAMATCH) |
    (isOn ? 0 : IoEventFdFlag.DEASSIGN)
  const value = { datamatch: match ?? 0n, addr: BigInt(address), len: bytes ?? ANY_LENGTH, fd, flags }
  return Result.getOrThrow(IoEventFd.encode(value))
}

export const doorbells = (engines: Engines, libc: Libc): Doorbells["Service"] =>
  Doorbells.of({
    attach: (vmId, place) =>
      Effect.gen(function*() {
        const problem = problemOf(yield* findVm(engines, NAME, vmId), place)
        if (problem !== undefined) return yield* refused(NAME, vmId, -Errno.EINVAL, problem)
        const eventFile = yield* eventFd(NAME, vmId, libc)
        yield* attach(engines, {
          capability: NAME,
          vmId,
          on: ({ file }) => file.ask(KvmIoctl.IOEVENTFD, encode(eventFile.fd, place, true)),
          off: ({ file }) => {
            file.ask(KvmIoctl.IOEVENTFD, encode(eventFile.fd, place, false))
          },
          end: () => eventFile.end(),
          explain: (errno) => explain(errno, place)
        })
        return doorbellOf(eventFile)
      })
  })
