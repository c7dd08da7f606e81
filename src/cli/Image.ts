/**
 * Guest images as a command line names them: files, read and made into a plan.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import type { ImagePlan } from "../domain/ImagePlan.ts"
import * as FlatBinary from "../layers/images/FlatBinary.ts"
import type { ImageError } from "../layers/images/ImageError.ts"
import * as LinuxBzImage from "../layers/images/LinuxBzImage.ts"
import { CliError } from "./CliError.ts"

/** Which files, and how they are started. */
export type Image =
  | { readonly _tag: "Flat"; readonly path: string; readonly address: number }
  | {
    readonly _tag: "Linux"
    readonly kernel: string
    readonly initrd: string | undefined
    readonly commandLine: string
  }

const problem = (error: PlatformError): string => {
  switch (error.reason._tag) {
    case "NotFound":
      return "there is no such file"
    case "PermissionDenied":
      return "you may not read it"
    case "BadResource":
      return "it is not a file"
    default:
      return error.message
  }
}

const read = (path: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    return { name: path, bytes: yield* files.readFile(path) }
  }).pipe(
    Effect.mapError((error) => new CliError({ reason: { _tag: "Unreadable", path, problem: problem(error) } }))
  )

const beginsWith = (bytes: Uint8Array, offset: number, text: string): boolean =>
  Array.from(text).every((character, index) => bytes[offset + index] === character.charCodeAt(0))

/** The two kinds of file that are given by mistake most often. Code may begin with any other bytes. */
const notFlat = (bytes: Uint8Array): { readonly looksLike: string; readonly advice: string } | undefined => {
  if (beginsWith(bytes, 0x202, "HdrS")) {
    return { looksLike: "a Linux kernel", advice: "give it with --kernel" }
  }
  if (beginsWith(bytes, 0, "\x7fELF")) {
    return {
      looksLike: "an ELF file",
      advice: "make a flat image of it (objcopy -O binary), or give a bzImage with --kernel"
    }
  }
  return undefined
}

/** Reads an image's files and plans it for a VM. Kernels that need a 64-bit vCPU are refused without `longMode`. */
export const plan = (
  image: Image,
  machine: { readonly memoryBytes: number; readonly longMode: boolean }
): Effect.Effect<ImagePlan, CliError | ImageError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    if (image._tag === "Flat") {
      const file = yield* read(image.path)
      const other = notFlat(file.bytes)
      if (other !== undefined) {
        return yield* new CliError({ reason: { _tag: "NotFlat", path: image.path, ...other } })
      }
      return yield* FlatBinary.plan({ ...file, address: image.address, memoryBytes: machine.memoryBytes })
    }
    return yield* LinuxBzImage.plan({
      kernel: yield* read(image.kernel),
      initrd: image.initrd === undefined ? undefined : yield* read(image.initrd),
      commandLine: image.commandLine,
      ...machine
    })
  })
