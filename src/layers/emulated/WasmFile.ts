/**
 * Finds the installed `v86.wasm` where there is a file system, without importing anything of Node.js: this folder is
 * also bundled for browsers, where the bytes come from the program.
 *
 * @since 0.1.0
 */
import { CpuError } from "./CpuError.ts"

interface Files {
  readonly readFile: (file: object) => Promise<Uint8Array>
}

interface Host {
  readonly process?: { readonly getBuiltinModule?: (name: string) => Files | undefined }
  readonly URL: new(url: string) => object
}

const notFound = (problem: string): never => {
  throw new CpuError({ reason: { _tag: "WasmNotFound", problem } })
}

/**
 * The bytes of `build/v86.wasm` of the npm package `v86`, as the module system resolves it from here. Rejects with a
 * `CpuError` of reason `WasmNotFound` in a browser, and where the package is not installed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = async (): Promise<Uint8Array> => {
  const host = globalThis as unknown as Host
  const files = host.process?.getBuiltinModule?.("node:fs/promises") ?? notFound("there is no file system here")
  try {
    const { resolve } = import.meta as unknown as { readonly resolve: (specifier: string) => string }
    return await files.readFile(new host.URL(resolve("v86/build/v86.wasm")))
  } catch (cause) {
    return notFound(cause instanceof Error ? cause.message : String(cause))
  }
}
