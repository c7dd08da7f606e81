/**
 * What the driver can do beside the nine hypercalls, as capabilities.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { HsmIoctlName } from "../../domain/abi/HsmIoctl.ts"
import { INTR_MONITOR_WORDS, IntrCommand, IntrMonitor } from "../../domain/abi/IntrMonitor.ts"
import { IoEventFd, IoEventFdFlag } from "../../domain/abi/IoEventFd.ts"
import { IrqFd, IRQFD_DEASSIGN } from "../../domain/abi/IrqFd.ts"
import { IrqLineOpCode } from "../../domain/abi/IrqLineWord.ts"
import { MsiEntry } from "../../domain/abi/MsiEntry.ts"
import { Errno } from "../../domain/Errno.ts"
import { PAGE_BYTES } from "../../domain/Limits.ts"
import { type CapabilityError, Doorbells, IrqFds, IrqLines, IrqMonitor, Msi } from "../../services/Hypervisor.ts"
import { doorbellOf, type EventFd, eventFd, irqFdOf } from "../native/eventFds.ts"
import type { Libc } from "../native/Libc.ts"
import { noVm, refused } from "../native/refused.ts"
import type { HsmBackend, HsmVm } from "./HsmBackend.ts"
import { meaningOf } from "./meanings.ts"
import { allocatePages } from "./UserMemory.ts"

// Lines of the I/O APIC that ACRN gives a VM (`VIOAPIC_RTE_NUM`).
const LINES = 24

// Line 0 of a PC's interrupt controllers is the timer, which an I/O APIC, whose numbers GSIs are, has at pin 2.
const TIMER_LINE = 0
const TIMER_GSI = 2

/** Asks the driver for a VM that must be there. */
const asking = (backend: HsmBackend, capability: string, name: HsmIoctlName) => (vmId: number, argument: Uint8Array) =>
  Effect.suspend(() => {
    const vm = backend.find(vmId)
    if (vm === undefined) return noVm(capability, vmId)
    const result = backend.ask(vm, name, argument)
    return result < 0 ? refused(capability, vmId, result, meaningOf(name, -result)) : Effect.succeed(vm)
  })

/** An encoded structure, or the refusal of a value that does not fit its field. */
const encoded = (
  capability: string,
  vmId: number,
  result: Result.Result<Uint8Array, { readonly message: string }>
): Effect.Effect<Uint8Array, CapabilityError> =>
  Result.isSuccess(result)
    ? Effect.succeed(result.success)
    : refused(capability, vmId, -Errno.EINVAL, result.failure.message)

// A number that is no address or datum becomes one that its field does not hold.
const word = (value: number): bigint => Number.isSafeInteger(value) ? BigInt(value) : -1n

const msiEntry = ({ address, data }: { readonly address: number; readonly data: number }) => ({
  msiAddr: word(address),
  msiData: word(data)
})

export const irqLines = (backend: HsmBackend): IrqLines["Service"] =>
  IrqLines.of({
    count: LINES,
    set: (vmId, line, high) => {
      if (!Number.isInteger(line) || line < 0 || line >= LINES) return
      const gsi = line === TIMER_LINE ? TIMER_GSI : line
      backend.setIrqLine(vmId, gsi, high ? IrqLineOpCode.High : IrqLineOpCode.Low)
    }
  })

export const msi = (backend: HsmBackend): Msi["Service"] =>
  Msi.of({
    inject: (vmId, message) => {
      const vm = backend.find(vmId)
      if (vm === undefined) return -Errno.ENODEV
      const entry = MsiEntry.encode(msiEntry(message))
      return Result.isSuccess(entry) ? Math.min(0, backend.ask(vm, "InjectMsi", entry.success)) : -Errno.EINVAL
    }
  })

/** The hypervisor answers in the page that it is given, whose pages the driver keeps until the VM's end. */
export const irqMonitor = (backend: HsmBackend, libc: Libc): IrqMonitor["Service"] => {
  const pages = new WeakMap<HsmVm, Uint8Array>()
  const pageOf = (vm: HsmVm): Uint8Array => {
    const page = pages.get(vm) ?? allocatePages(libc, PAGE_BYTES)
    pages.set(vm, page)
    return page
  }
  const command = (vmId: number, cmd: number, first: bigint) =>
    Effect.suspend(() => {
      const vm = backend.find(vmId)
      if (vm === undefined) return noVm("VM_INTR_MONITOR", vmId)
      const page = pageOf(vm)
      const buffer = new Uint8Array(INTR_MONITOR_WORDS * 8)
      new DataView(buffer.buffer).setBigUint64(0, first, true)
      Result.getOrThrow(IntrMonitor.encodeInto({ cmd, bufCnt: INTR_MONITOR_WORDS, buffer }, page))
      const result = backend.ask(vm, "VmIntrMonitor", libc.addressOf(page))
      return result < 0
        ? refused("VM_INTR_MONITOR", vmId, result, meaningOf("VmIntrMonitor", -result))
        : Effect.succeed(Result.getOrThrow(IntrMonitor.decode(page)))
    })
  return IrqMonitor.of({
    counts: (vmId) =>
      Effect.map(command(vmId, IntrCommand.GetData, 0n), ({ bufCnt, buffer }) => {
        const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
        const pairs = Math.min(bufCnt, INTR_MONITOR_WORDS) >> 1
        return Array.from({ length: pairs }, (_, pair) => ({
          irq: Number(view.getBigUint64(pair * 16, true)),
          count: view.getBigUint64(pair * 16 + 8, true)
        }))
      }),
    delay: (vmId, milliseconds) =>
      Number.isSafeInteger(milliseconds) && milliseconds >= 0
        ? Effect.asVoid(command(vmId, IntrCommand.DelayInt, BigInt(milliseconds)))
        : refused("VM_INTR_MONITOR", vmId, -Errno.EINVAL, `a delay is a number of milliseconds, not ${milliseconds}`)
  })
}

/** What was asked for, until the scope closes or the VM is gone, which ends the eventfd. */
const assigned = (backend: HsmBackend, capability: string, name: HsmIoctlName) => {
  const ask = asking(backend, capability, name)
  return (vmId: number, eventFile: EventFd, assign: Uint8Array, deassign: Uint8Array) => {
    const end = () => eventFile.end()
    return Effect.acquireRelease(
      Effect.tap(ask(vmId, assign), (vm) => Effect.sync(() => vm.atEnd.add(end))),
      (vm) =>
        Effect.sync(() => {
          vm.atEnd.delete(end)
          if (backend.find(vmId) === vm) backend.ask(vm, name, deassign)
        })
    )
  }
}

export const doorbells = (backend: HsmBackend, libc: Libc): Doorbells["Service"] => {
  const name = "IOEVENTFD"
  const assign = assigned(backend, name, "IoEventFd")
  return Doorbells.of({
    attach: (vmId, { address, bytes, match, space }) =>
      Effect.gen(function*() {
        if (bytes === undefined) {
          const problem = "ACRN's doorbells hear writes of one size; give the size in bytes"
          return yield* refused(name, vmId, -Errno.EINVAL, problem)
        }
        const eventFile = yield* eventFd(name, vmId, libc)
        const flags = (space === "Port" ? IoEventFdFlag.Port : 0) | (match === undefined ? 0 : IoEventFdFlag.DataMatch)
        const place = { fd: eventFile.fd, flags, addr: word(address), len: bytes, data: match ?? 0n }
        const on = yield* encoded(name, vmId, IoEventFd.encode(place))
        const off = yield* encoded(name, vmId, IoEventFd.encode({ ...place, flags: flags | IoEventFdFlag.Deassign }))
        yield* assign(vmId, eventFile, on, off)
        return doorbellOf(eventFile)
      })
  })
}

export const irqFds = (backend: HsmBackend, libc: Libc): IrqFds["Service"] => {
  const name = "IRQFD"
  const assign = assigned(backend, name, "IrqFd")
  return IrqFds.of({
    attach: (vmId, message) =>
      Effect.gen(function*() {
        const eventFile = yield* eventFd(name, vmId, libc)
        const irqFd = { fd: eventFile.fd, flags: 0, msi: msiEntry(message) }
        const on = yield* encoded(name, vmId, IrqFd.encode(irqFd))
        const off = yield* encoded(name, vmId, IrqFd.encode({ ...irqFd, flags: IRQFD_DEASSIGN }))
        yield* assign(vmId, eventFile, on, off)
        return irqFdOf(eventFile)
      })
  })
}
