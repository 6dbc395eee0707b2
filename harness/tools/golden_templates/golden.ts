// Checks an app against a golden bundle, and writes what `harness app` reads. Written by `harness golden`.
// It has no dependencies: in React Native, a browser or Node, give it a way to read the bundle's files and the app.

export type Tensor = Float32Array | Int8Array | Uint8Array | Int16Array

export interface TensorInfo {
  dtype: 'float32' | 'int8' | 'uint8' | 'int16'
  shape: number[]
  scale: number // 0 if the numbers are real already
  zero_point: number
}

export interface GoldenImage {
  name: string
  image: string
  input: string
  output: string
  label: number
}

export interface Golden {
  bundle: string
  model: string
  spec: { class_names: string[] }
  input: TensorInfo
  output: TensorInfo
  input_tolerance: number
  tolerance: number
  images: GoldenImage[]
}

// Reads a file of the bundle, such as "golden.json" or "images/000-3-17.jpg".
export type Read = (file: string) => Promise<Uint8Array>

export interface App {
  // The app's own code: an encoded image as the model's input tensor.
  preprocess(image: Uint8Array): Promise<Tensor>
  // The app's own way to run the model on an input tensor, such as
  //   react-native-fast-tflite: async (input) => (await model.run([input]))[0]
  //   LiteRT.js: async (input) => {
  //     const tensor = new LiteRt.Tensor(input, golden.input.shape)
  //     const [output] = await model.run(tensor)
  //     return (await output.moveTo('wasm')).toTypedArray()
  //   }
  run(input: Tensor): Promise<Tensor>
  // What the app makes of the raw output: probabilities. Left out, they are dequantized here.
  postprocess?(output: Tensor): number[]
}

export interface Result {
  image: string
  problems: string[] // none if the app is right
  line: string // of the dump for `harness app`
}

const TYPES = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array }

export async function load(read: Read): Promise<Golden> {
  return JSON.parse(new TextDecoder().decode(await read('golden.json'))) as Golden
}

export async function tensor(read: Read, file: string, info: TensorInfo): Promise<Tensor> {
  const bytes = await read(file)
  return new TYPES[info.dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer)
}

// Real numbers of stored ones.
export function real(values: ArrayLike<number>, info: TensorInfo): number[] {
  return Array.from(values, (value) => (info.scale ? (value - info.zero_point) * info.scale : value))
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity
  let largest = 0
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number))
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference
  }
  return largest
}

export const best = (values: number[]): number => values.indexOf(Math.max(...values))

// Checks one image: that the app feeds what the model was trained on, and that the model answers the right tensor
// rightly. The line of the dump holds what the app fed and what the model made of that.
export async function checkImage(golden: Golden, image: GoldenImage, read: Read, app: App): Promise<Result> {
  const problems: string[] = []
  const probabilities = app.postprocess?.bind(app) ?? ((output: Tensor) => real(output, golden.output))
  const expected = await tensor(read, image.input, golden.input)
  const fed = await app.preprocess(await read(image.image))
  const off = largestDifference(real(fed, golden.input), real(expected, golden.input))
  if (off > golden.input_tolerance) {
    problems.push(`the input tensor differs by ${off.toPrecision(3)}, ${golden.input_tolerance.toPrecision(3)} allowed`)
  }
  const answer = real(await tensor(read, image.output, golden.output), golden.output)
  const output = probabilities(await app.run(expected))
  const difference = largestDifference(output, answer)
  if (difference > golden.tolerance) {
    problems.push(`a probability differs by ${difference.toPrecision(3)}, ${golden.tolerance} allowed`)
  }
  const names = golden.spec.class_names
  if (best(output) !== best(answer)) {
    problems.push(`answered ${names[best(output)]}, the model answers ${names[best(answer)]}`)
  }
  const line = { bundle: golden.bundle, image: image.name, input: Array.from(fed), output: probabilities(await app.run(fed)) }
  return { image: image.name, problems, line: JSON.stringify(line) }
}
