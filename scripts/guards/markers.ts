/**
 * Finds the marked guards in src, and for each what taking it out means:
 *
 * - an `if`: its condition becomes false, so that what it keeps out gets through;
 * - a `try`: what its `catch` does is dropped;
 * - a condition, or a part of one: it becomes true, so that it asks for nothing any more;
 * - anything else (a function, a loop): its body is dropped.
 *
 * A marker is a comment line `// Guard: <class>` right above the guard, several classes with commas between.
 */
import { globSync, readFileSync } from "node:fs"
import { parseAst } from "rolldown/parseAst"

export interface Position {
  /** From 1. */
  readonly line: number
  /** From 0. */
  readonly column: number
}

export interface Guard {
  readonly classes: ReadonlyArray<string>
  /** Relative to the project, with slashes. */
  readonly file: string
  /** The functions, methods and properties around it, outermost first. */
  readonly symbol: string
  readonly start: Position
  readonly end: Position
  /** What stands there when the guard is taken out. */
  readonly replacement: "false" | "true" | "{}"
}

interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [key: string]: unknown
}

const MARKER = /^[ \t]*\/\/ Guard: (.+)\n/gm
const BLANK_OR_COMMENT = /^(\s|\/\/.*\n|\/\*[\s\S]*?\*\/)*/

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && typeof (value as { type?: unknown }).type === "string"

const childrenOf = (node: Node): Array<Node> => Object.values(node).flat().filter(isNode)

/** The nodes that hold an offset, outermost first. */
const pathTo = (root: Node, offset: number): Array<Node> => {
  const path = [root]
  for (let node: Node | undefined = root; node !== undefined;) {
    node = childrenOf(node).find(({ end, start }) => start <= offset && offset < end)
    if (node !== undefined) path.push(node)
  }
  return path
}

const nameOf = (node: Node): string | undefined => {
  const named = node["id"] ?? node["key"]
  return isNode(named) && typeof named["name"] === "string" ? named["name"] : undefined
}

const NAMING = new Set([
  "ClassDeclaration",
  "FunctionDeclaration",
  "MethodDefinition",
  "Property",
  "PropertyDefinition"
])

const symbolOf = (path: ReadonlyArray<Node>): string =>
  path.flatMap((node) => {
    const isFunction = node.type === "VariableDeclarator" && isNode(node["init"]) && node["init"].type !== "Literal"
    return (NAMING.has(node.type) || isFunction) ? nameOf(node) ?? [] : []
  }).join(".")

const firstBlock = (node: Node): Node | undefined => {
  if (node.type === "BlockStatement") return node
  // A function's body is marked by its own type.
  if (node.type === "FunctionBody") return node
  for (const child of childrenOf(node)) {
    const block = firstBlock(child)
    if (block !== undefined) return block
  }
  return undefined
}

const CONDITIONS = new Set(["BinaryExpression", "LogicalExpression"])

const takenOut = (node: Node): { readonly node: Node; readonly replacement: Guard["replacement"] } | undefined => {
  if (node.type === "IfStatement") return { node: node["test"] as Node, replacement: "false" }
  if (CONDITIONS.has(node.type)) return { node, replacement: "true" }
  const block = firstBlock(node.type === "TryStatement" ? node["handler"] as Node : node)
  return block === undefined ? undefined : { node: block, replacement: "{}" }
}

const positionIn = (source: string, offset: number): Position => {
  const before = source.slice(0, offset).split("\n")
  return { line: before.length, column: before.at(-1)!.length }
}

export const guardsIn = (file: string, source: string): Array<Guard> => {
  const markers = [...source.matchAll(MARKER)]
  if (markers.length === 0) return []
  const root = parseAst(source, { lang: "ts" }) as unknown as Node
  return markers.map((marker) => {
    const after = marker.index + marker[0].length
    const offset = after + BLANK_OR_COMMENT.exec(source.slice(after))![0].length
    const path = pathTo(root, offset)
    const at = path.findIndex((node) => node.start === offset)
    const removal = at < 0 ? undefined : takenOut(path[at]!)
    if (removal === undefined) {
      const { line } = positionIn(source, marker.index)
      throw new Error(`${file}:${line}: below this marker stands nothing that could be taken out`)
    }
    return {
      classes: marker[1]!.split(",").map((id) => id.trim()),
      file,
      symbol: symbolOf(path.slice(0, at + 1)),
      start: positionIn(source, removal.node.start),
      end: positionIn(source, removal.node.end),
      replacement: removal.replacement
    }
  })
}

/** Every marked guard, in the order of files and lines. */
export const findGuards = (): Array<Guard> =>
  globSync("src/**/*.ts").map((file) => file.replaceAll("\\", "/")).toSorted().flatMap((file) =>
    guardsIn(file, readFileSync(file, "utf8"))
  )
