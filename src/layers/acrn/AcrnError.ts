/**
 * Why the ACRN layer could not be built, or what the driver refused and what it means by that.
 */
import * as Schema from "effect/Schema"
import { describeResult } from "../../domain/Errno.ts"
import { FFI } from "../native/Libc.ts"

export const AcrnErrorReason = Schema.TaggedUnion({
  BadOption: { option: Schema.String, value: Schema.Unknown, expected: Schema.String },
  NoFfi: { problem: Schema.String },
  WrongPlatform: { platform: Schema.String },
  NoDevice: { path: Schema.String, errno: Schema.Number, meaning: Schema.String },
  Refused: { ioctl: Schema.String, vmId: Schema.Number, errno: Schema.Number, meaning: Schema.String },
  NotAsked: { ioctl: Schema.String, vmId: Schema.Number, errno: Schema.Number, problem: Schema.String },
  WaiterEnded: { vmId: Schema.Number, problem: Schema.String }
})

export type AcrnErrorReason = typeof AcrnErrorReason.Type

const show = (value: unknown): string =>
  typeof value === "number" || typeof value === "bigint" || typeof value === "string"
    ? String(value)
    : `a value of type ${typeof value}`

export class AcrnError extends Schema.TaggedError<AcrnError>()("AcrnError", { reason: AcrnErrorReason }) {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "BadOption":
        return `the ACRN layer's option ${reason.option} is ${show(reason.value)} but must be ${reason.expected}`
      case "NoFfi":
        return `the ACRN layer calls the kernel through koffi, which could not be loaded (${reason.problem}); ` +
          `install it beside upcall: npm install ${FFI}`
      case "WrongPlatform":
        return `ACRN's driver is part of Linux on x86-64, and this is ${reason.platform}; ` +
          "run the program in the Service VM of an ACRN machine, or choose another hypervisor layer"
      case "NoDevice":
        return `${reason.path} could not be opened: ${describeResult(-reason.errno)}; ${reason.meaning}`
      case "Refused":
        return `${reason.ioctl} on VM ${reason.vmId} was refused with ${describeResult(-reason.errno)}: ` +
          reason.meaning
      case "NotAsked":
        return `${reason.ioctl} on VM ${reason.vmId} was not asked of the driver, and answered with ` +
          `${describeResult(-reason.errno)}: ${reason.problem}`
      case "WaiterEnded":
        return `the thread that waits for I/O requests of VM ${reason.vmId} ended: ${reason.problem}; ` +
          "the VM's requests are not answered any more, so pause and destroy it"
    }
  }
}
