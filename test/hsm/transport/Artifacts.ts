/**
 * The files that test/hsm/build.sh made.
 */
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { HsmError } from "./HsmError.ts"

/** The project's folder, which is at the same place inside: the host's files are the machine's. */
export const PROJECT = fileURLToPath(new URL("../../..", import.meta.url))

const FOLDER = join(PROJECT, ".cache/hsm/current")

export interface Artifacts {
  /** The User-Mode Linux kernel. */
  readonly linux: string
  /** Process 1 inside. */
  readonly init: string
  /** The kernel's own sample client, unmodified. */
  readonly sample: string
  /** Our client in C: one scenario per argument. */
  readonly scenarios: string
  /** The folder of the driver's sources. */
  readonly driver: string
}

const FILES: Artifacts = {
  linux: join(FOLDER, "linux"),
  init: join(FOLDER, "init"),
  sample: join(FOLDER, "vm-sample"),
  scenarios: join(FOLDER, "scenarios"),
  driver: join(FOLDER, "driver")
}

export const artifacts: Effect.Effect<Artifacts, HsmError> = Effect.suspend(() => {
  const missing = Object.values(FILES).find((file: string) => !existsSync(file))
  return missing === undefined
    ? Effect.succeed(FILES)
    : Effect.fail(new HsmError({ reason: { _tag: "NotBuilt", file: missing } }))
})
