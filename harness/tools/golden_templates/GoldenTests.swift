// Checks an app against a golden bundle. Written by `harness golden`.
// Add the bundle's folder to the test target as a folder reference named "golden", and call the app in `preprocess`.
// dump.jsonl is attached to the test's result afterwards: harness app dump.jsonl --golden DIR
import TensorFlowLite
import UIKit
import XCTest

final class GoldenTests: XCTestCase {
    struct Info: Decodable {
        let dtype: String
        let shape: [Int]
        let scale: Float
        let zero_point: Int

        /// Real numbers of raw little-endian ones.
        func real(_ data: Data) -> [Float] {
            data.withUnsafeBytes { raw in
                switch dtype {
                case "float32": return Array(raw.bindMemory(to: Float.self))
                case "int16": return raw.bindMemory(to: Int16.self).map { Float(Int($0) - zero_point) * scale }
                case "uint8": return raw.bindMemory(to: UInt8.self).map { Float(Int($0) - zero_point) * scale }
                default: return raw.bindMemory(to: Int8.self).map { Float(Int($0) - zero_point) * scale }
                }
            }
        }
    }

    struct Entry: Decodable { let name, image, input, output: String }

    struct Golden: Decodable {
        let bundle, model: String
        let input, output: Info
        let input_tolerance, tolerance: Float
        let images: [Entry]
    }

    struct Line: Encodable {
        let bundle, image: String
        let input, output: [Float]
    }

    private lazy var folder = Bundle(for: Self.self).resourceURL!.appendingPathComponent("golden")
    private lazy var golden = try! JSONDecoder().decode(Golden.self, from: read("golden.json"))

    /// The app's own code: an image as the model's input tensor, raw little-endian numbers. Replace this.
    private func preprocess(_ image: UIImage) throws -> Data {
        throw XCTSkip("call the app here")
    }

    func testIsFedAsTheModelWasTrained() throws {
        let interpreter = try opened()
        var dump = Data()
        for image in golden.images {
            let fed = try preprocess(XCTUnwrap(UIImage(data: read(image.image))))
            let output = golden.output.real(try answer(interpreter, fed))
            let line = Line(
                bundle: golden.bundle, image: image.name, input: golden.input.real(fed), output: output)
            dump += try JSONEncoder().encode(line) + Data("\n".utf8)
            let expected = golden.input.real(try read(image.input))
            assertAlike(image.name, expected, golden.input.real(fed), golden.input_tolerance)
        }
        let attachment = XCTAttachment(data: dump, uniformTypeIdentifier: "public.json")
        attachment.name = "dump.jsonl"
        attachment.lifetime = .keepAlways
        add(attachment)
    }

    func testAnswers() throws {
        let interpreter = try opened()
        for image in golden.images {
            let output = golden.output.real(try answer(interpreter, read(image.input)))
            let expected = golden.output.real(try read(image.output))
            XCTAssertEqual(best(expected), best(output), image.name)
            assertAlike(image.name, expected, output, golden.tolerance)
        }
    }

    private func opened() throws -> Interpreter {
        let interpreter = try Interpreter(modelPath: folder.appendingPathComponent(golden.model).path)
        try interpreter.allocateTensors()
        return interpreter
    }

    /// The model's raw output.
    private func answer(_ interpreter: Interpreter, _ tensor: Data) throws -> Data {
        try interpreter.copy(tensor, toInputAt: 0)
        try interpreter.invoke()
        return try interpreter.output(at: 0).data
    }

    private func read(_ file: String) throws -> Data { try Data(contentsOf: folder.appendingPathComponent(file)) }

    private func best(_ values: [Float]) -> Int? { values.indices.max { values[$0] < values[$1] } }

    private func assertAlike(_ name: String, _ expected: [Float], _ actual: [Float], _ allowed: Float) {
        XCTAssertEqual(expected.count, actual.count, "\(name): number of values")
        let largest = zip(expected, actual).map { abs($0 - $1) }.max() ?? .infinity
        XCTAssertLessThanOrEqual(largest, allowed, name)
    }
}
