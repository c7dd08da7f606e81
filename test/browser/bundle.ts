/** The page's program in one file, as a browser takes it. */
import { join } from "node:path"
import { type OutputChunk, rolldown, type RolldownLog } from "rolldown"

export interface Bundle {
  readonly code: string
  readonly imports: ReadonlyArray<string>
  readonly warnings: ReadonlyArray<string>
}

export const bundlePage = async (): Promise<Bundle> => {
  const warnings: Array<string> = []
  const bundle = await rolldown({
    input: join(import.meta.dirname, "page.ts"),
    platform: "browser",
    onwarn: (warning: RolldownLog) => void warnings.push(warning.message)
  })
  const { output } = await bundle.generate({ format: "esm", minify: true })
  await bundle.close()
  const chunks = output.filter((part): part is OutputChunk => part.type === "chunk")
  return {
    code: chunks[0]!.code,
    // What is not in the bundle stays an import of it.
    imports: chunks.flatMap((chunk) => [...chunk.imports, ...chunk.dynamicImports]),
    warnings
  }
}
