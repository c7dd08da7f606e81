// Removes dist, so that a module that was deleted or renamed is not published from an earlier build.
import { rm } from "node:fs/promises"

await rm(new URL("../dist", import.meta.url), { recursive: true, force: true })
