/**
 * Interrupts by message: one at once, and those that an eventfd of the host raises.
 *
 * KVM_IRQFD takes no message but the number of a line (GSI), so each message gets one of its own in the VM's routing
 * table, above those of the chips.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Errno } from "../../../domain/Errno.ts"
import { IrqFds, Msi, type MsiMessage } from "../../../services/Hypervisor.ts"
import { eventFd, irqFdOf } from "../../native/eventFds.ts"
import type { Libc } from "../../native/Libc.ts"
import { refused } from "../../native/refused.ts"
import { IrqFd, IrqFdFlag } from "../abi/EventFds.ts"
import { Msi as MsiStruct } from "../abi/Interrupts.ts"
import { KvmIoctl } from "../abi/KvmIoctl.ts"
import type { Engine } from "../Engine.ts"
import { attach, type Engines, findVm } from "./Engines.ts"
import { GsiRoutes } from "./GsiRoutes.ts"

/** Bits 31..20 of every address that is a message to a local APIC. */
const MESSAGE_ADDRESS = 0xfee

const isMessage = ({ address, data }: MsiMessage): boolean =>
  Number.isSafeInteger(address) && address >= 0 && (address >>> 20) === MESSAGE_ADDRESS &&
  Number.isInteger(data) && data >= 0 && data <= 0xffff_ffff

const fieldsOf = ({ address, data }: MsiMessage) => ({
  addressLo: address >>> 0,
  addressHi: Math.floor(address / 2 ** 32),
  data
})

export const msi = (engines: Engines): Msi["Service"] =>
  Msi.of({
    inject: (vmId, message) => {
      const engine = engines.get(vmId)
      if (engine === undefined) return -Errno.ENODEV
      if (!isMessage(message)) return -Errno.EINVAL
      const structure = Result.getOrThrow(MsiStruct.encode({ ...fieldsOf(message), flags: 0, devid: 0 }))
      const result = engine.file.ask(KvmIoctl.SIGNAL_MSI, structure)
      // Positive when it was taken, 0 when the guest has masked it, EPERM from kernels that tell when there is nobody of
      // that address: such a message is lost, as it is on a board.
      if (result < 0 && result !== -Errno.EPERM) return result
      engine.wake()
      return 0
    }
  })

const NAME = "KVM_IRQFD"

const explain = (errno: number): string => {
  switch (errno) {
    case Errno.ENOMEM:
      return "the VM's routing table has no room for another message; close what is not needed any more"
    default:
      return "the VM has no interrupt controllers in the kernel, or the kernel cannot do this; build the layer without " +
        "`interruptController: \"None\"`"
  }
}

/** `mostRoutes` is how many entries a VM's routing table can have. */
export const irqFds = (engines: Engines, libc: Libc, mostRoutes: number): IrqFds["Service"] => {
  const routesOf = new WeakMap<Engine, GsiRoutes>()
  const routes = (engine: Engine): GsiRoutes => {
    const known = routesOf.get(engine) ??
      new GsiRoutes((table) => engine.file.ask(KvmIoctl.SET_GSI_ROUTING, table), mostRoutes)
    routesOf.set(engine, known)
    return known
  }
  const ask = (engine: Engine, fd: number, gsi: number, flags: number) =>
    engine.file.ask(KvmIoctl.IRQFD, Result.getOrThrow(IrqFd.encode({ fd, gsi, flags, resamplefd: 0 })))
  return IrqFds.of({
    attach: (vmId, message) =>
      Effect.gen(function*() {
        yield* findVm(engines, NAME, vmId)
        if (!isMessage(message)) {
          const problem = "an interrupt message goes to an address of 0xFEE00000 to 0xFEEFFFFF and carries 32 bits"
          return yield* refused(NAME, vmId, -Errno.EINVAL, problem)
        }
        const eventFile = yield* eventFd(NAME, vmId, libc)
        let gsi = -1
        const engine = yield* attach(engines, {
          capability: NAME,
          vmId,
          on: (vm) => {
            gsi = routes(vm).add(fieldsOf(message))
            if (gsi < 0) return gsi
            const result = ask(vm, eventFile.fd, gsi, 0)
            if (result < 0) routes(vm).remove(gsi)
            return result
          },
          off: (vm) => {
            ask(vm, eventFile.fd, gsi, IrqFdFlag.DEASSIGN)
            routes(vm).remove(gsi)
          },
          end: () => eventFile.end(),
          explain
        })
        return irqFdOf(eventFile, () => engine.wake())
      })
  })
}
