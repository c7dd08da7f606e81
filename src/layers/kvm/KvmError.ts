/**
 * Why the KVM layer could not be built.
 */
import * as Schema from "effect/Schema"
import { describeResult, Errno } from "../../domain/Errno.ts"
import { FFI } from "../native/Libc.ts"
import { API_VERSION } from "./abi/KvmIoctl.ts"

export const KvmErrorReason = Schema.TaggedUnion({
  BadOption: { option: Schema.String, value: Schema.Union([Schema.Number, Schema.String]), expected: Schema.String },
  NoFfi: { problem: Schema.String },
  WrongPlatform: { platform: Schema.String },
  NoDevice: { path: Schema.String, errno: Schema.Number },
  WrongVersion: { version: Schema.Number },
  NoCapability: { capability: Schema.String },
  Refused: { ioctl: Schema.String, errno: Schema.Number }
})

export type KvmErrorReason = typeof KvmErrorReason.Type

const meaningOfOpen = (errno: number): string => {
  switch (errno) {
    case Errno.ENOENT:
      return "the kernel has no KVM, or the processor's virtualization is off: enable it in the firmware (or, in a VM, " +
        "nested virtualization on the host) and load kvm_intel or kvm_amd"
    case Errno.EACCES:
      return "this user may not: join the group that owns it (often `usermod -aG kvm USER`), or run as root"
    default:
      return "`upcall doctor` looks at what is missing"
  }
}

export class KvmError extends Schema.TaggedError<KvmError>()("KvmError", { reason: KvmErrorReason }) {
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "BadOption":
        return `the KVM layer's option ${reason.option} is ${reason.value} but must be ${reason.expected}`
      case "NoFfi":
        return `the KVM layer calls the kernel through koffi, which could not be loaded (${reason.problem}); ` +
          `install it beside upcall: npm install ${FFI}`
      case "WrongPlatform":
        return `the KVM layer needs Linux on x86-64, and this is ${reason.platform}; use the Emulated layer here`
      case "NoDevice":
        return `${reason.path} could not be opened: ${describeResult(-reason.errno)}; ${meaningOfOpen(reason.errno)}`
      case "WrongVersion":
        return reason.version < 0
          ? `the device is no KVM: it answered KVM_GET_API_VERSION with ${describeResult(reason.version)}; ` +
            "leave the option device out, or give the path of KVM's own"
          : `this KVM has version ${reason.version} of its interface, and only ${API_VERSION} is supported; ` +
            "update the kernel"
      case "NoCapability":
        return `this KVM lacks ${reason.capability}, which the layer cannot do without; update the kernel`
      case "Refused":
        return `${reason.ioctl} on /dev/kvm was refused: ${describeResult(-reason.errno)}`
    }
  }
}
