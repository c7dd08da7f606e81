import { assert, it } from "@effect/vitest"
import { structures as lawful } from "../../src/testing/laws/StructureCodecs.ts"
import { structures } from "../domain/abi/structures.ts"

it("law 19 is tried on every structure that the C headers decide, and on the word of SET_IRQLINE", () => {
  const names = (layouts: ReadonlyArray<{ readonly cName: string }>) => layouts.map(({ cName }) => cName)
  assert.deepStrictEqual(names(lawful), [...names(structures), "acrn_irqline_ops"])
})
