/**
 * Guest images as a command line names them: files, read and made into a plan.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import type { ImagePlan } from "../domain/ImagePlan.ts"
import * as Elf from "../layers/images/Elf.ts"
import * as FlatBinary from "../layers/images/FlatBinary.ts"
import type { ImageError } from "../layers/images/ImageError.ts"
import * as LinuxBzImage from "../layers/images/LinuxBzImage.ts"
import * as Multiboot from "../layers/images/Multiboot.ts"
import { CliError } from "./CliError.ts"

/**
 * Which files, and how they are started. The format of a `File` is told by its bytes: a Multiboot kernel, an ELF
 * executable, or else a flat binary, for which alone `address` is (default `DEFAULT_ADDRESS`).
 */
export type Image =
  | { readonly _tag: "File"; readonly path: string; readonly address: number | undefined }
  | {
    readonly _tag: "Linux"
    readonly kernel: string
    readonly initrd: string | undefined
    readonly commandLine: string
  }

/** Where a flat binary goes that was given no address. */
const DEFAULT_ADDRESS = 0x1000

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

const isLinuxKernel = (bytes: Uint8Array): boolean =>
  Array.from("HdrS").every((character, index) => bytes[0x202 + index] === character.charCodeAt(0))

const planFile = (
  file: LinuxBzImage.ImageFile,
  address: number | undefined,
  memoryBytes: number
): Effect.Effect<ImagePlan, CliError | ImageError> => {
  const path = file.name
  // First of all: many such kernels are ELF files.
  const isMultiboot = Multiboot.isMultiboot(file.bytes)
  if (isMultiboot || Elf.isElf(file.bytes)) {
    if (address !== undefined) {
      const format = isMultiboot ? "a Multiboot kernel" : "an ELF file"
      return Effect.fail(new CliError({ reason: { _tag: "HasAddress", path, format } }))
    }
    return isMultiboot ? Multiboot.plan({ kernel: file, memoryBytes }) : Elf.plan({ ...file, memoryBytes })
  }
  if (isLinuxKernel(file.bytes)) {
    return Effect.fail(
      new CliError({
        reason: { _tag: "NotFlat", path, looksLike: "a Linux kernel", advice: "give it with --kernel" }
      })
    )
  }
  return FlatBinary.plan({ ...file, address: address ?? DEFAULT_ADDRESS, memoryBytes })
}

/** Reads an image's files and plans it for a VM. Kernels that need a 64-bit vCPU are refused without `longMode`. */
export const plan = (
  image: Image,
  machine: { readonly memoryBytes: number; readonly longMode: boolean }
): Effect.Effect<ImagePlan, CliError | ImageError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    if (image._tag === "File") {
      return yield* planFile(yield* read(image.path), image.address, machine.memoryBytes)
    }
    return yield* LinuxBzImage.plan({
      kernel: yield* read(image.kernel),
      initrd: image.initrd === undefined ? undefined : yield* read(image.initrd),
      commandLine: image.commandLine,
      ...machine
    })
  })
