/**
 * The dirty log of KVM's memory slots, as a capability.
 */
import * as Effect from "effect/Effect"
import { Errno } from "../../../domain/Errno.ts"
import { DirtyLog } from "../../../services/Hypervisor.ts"
import type { Libc } from "../../native/Libc.ts"
import { noVm, refused } from "../../native/refused.ts"
import { DirtyPages } from "./DirtyPages.ts"
import { attach, type Engines } from "./Engines.ts"

const NAME = "KVM_GET_DIRTY_LOG"

/** Hears of each write of this process to guest memory, by its address here. */
export type HostWrites = Set<(address: number, bytes: number) => void>

const explain = (errno: number): string =>
  errno === Errno.EBUSY
    ? "the VM is tracked already, and each write is told once; close the other tracking first"
    : "the kernel keeps no log of the VM's memory"

export const dirtyLog = (engines: Engines, libc: Libc, hostWrites: HostWrites): DirtyLog["Service"] =>
  DirtyLog.of({
    track: (vmId) =>
      Effect.suspend(() => {
        let pages: DirtyPages | undefined
        let isGone = false
        const note = (address: number, bytes: number) => pages?.noteHostWrite(address, bytes)
        const forget = () => {
          isGone = true
          hostWrites.delete(note)
        }
        return Effect.as(
          attach(engines, {
            capability: NAME,
            vmId,
            on: (engine) => {
              if (engine.dirtyPages !== undefined) return -Errno.EBUSY
              const made = new DirtyPages({
                ask: (request, structure) => engine.file.ask(request, structure),
                slots: () => engine.slots.slots,
                addressOf: libc.addressOf
              })
              const result = engine.logDirtyPages(made)
              if (result < 0) return result
              pages = made
              hostWrites.add(note)
              return 0
            },
            off: (engine) => {
              forget()
              engine.logDirtyPages(undefined)
            },
            end: forget,
            explain
          }),
          {
            take: Effect.suspend(() => {
              if (isGone) return noVm(NAME, vmId)
              const taken = pages!.take()
              return typeof taken === "number" ? refused(NAME, vmId, taken, explain(-taken)) : Effect.succeed(taken)
            })
          }
        )
      })
  })
