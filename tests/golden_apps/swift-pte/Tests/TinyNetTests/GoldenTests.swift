// Written by edgeopt app; edgeopt app --update writes it anew.
import Foundation
import XCTest

@testable import TinyNet

/// One golden tensor: its sizes and its bytes, little-endian.
private struct GoldenTensor {
    let shape: [Int]
    let data: Data

    func values<T>(_ type: T.Type) -> [T] {
        data.withUnsafeBytes { Array($0.bindMemory(to: type)) }
    }
}

private struct Sample {
    var inputs: [GoldenTensor] = []
    var outputs: [GoldenTensor] = []
}

/// Agreement of one output over all samples.
private struct Agreement {
    var signal = 0.0, noise = 0.0, equal = 0, count = 0

    mutating func add(_ wanted: [Double], _ found: [Double]) {
        XCTAssertEqual(wanted.count, found.count)
        for (a, b) in zip(wanted, found) {
            count += 1
            equal += a == b ? 1 : 0
            XCTAssertEqual(a.isFinite, b.isFinite)
            if a.isFinite && b.isFinite {
                signal += a * a
                noise += (a - b) * (a - b)
            }
        }
    }

    func reached(_ kind: String) -> Double {
        if kind == "agreement" { return Double(equal) / Double(max(count, 1)) }
        return noise == 0 ? .infinity : 10 * log10(signal / noise)
    }
}

/// Replays the bundle's golden inputs and holds the outputs to the bundle's tolerances.
final class GoldenTests: XCTestCase {
    private var samples: [Sample] = []
    private var tolerances: [Int: (kind: String, least: Double)] = [:]

    override func setUpWithError() throws {
        let folder = try XCTUnwrap(Bundle.module.url(forResource: "golden", withExtension: nil))
        let text = try String(contentsOf: folder.appendingPathComponent("golden.txt"), encoding: .utf8)
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let words = line.split(separator: " ").map(String.init)
            if words[0] == "tolerance" {
                tolerances[Int(words[1])!] = (words[2], Double(words[3])!)
                continue
            }
            let sample = Int(words[0])!
            if samples.count <= sample { samples.append(Sample()) }
            let shape = words[4] == "-" ? [] : words[4].split(separator: "x").map { Int($0)! }
            let tensor = GoldenTensor(shape: shape, data: try Data(contentsOf: folder.appendingPathComponent(words[5])))
            if words[1] == "input" {
                samples[sample].inputs.append(tensor)
            } else {
                samples[sample].outputs.append(tensor)
            }
        }
    }

    func testEveryOutputIsWithinItsTolerance() async throws {
        let model = try TinyNet()
        var agreements = [Agreement](repeating: Agreement(), count: 2)
        for sample in samples {
            let outputs = try await model.run(
                image: sample.inputs[0].values(Float.self)
            )
            agreements[0].add(
                sample.outputs[0].values(Float.self).map(Double.init),
                outputs.logits.map(Double.init)
            )
            agreements[1].add(
                sample.outputs[1].values(Int.self).map(Double.init),
                outputs.mask.map(Double.init)
            )
        }
        for (index, agreement) in agreements.enumerated() {
            let tolerance = try XCTUnwrap(tolerances[index])
            XCTAssertGreaterThanOrEqual(agreement.reached(tolerance.kind), tolerance.least, "output \(index)")
        }
    }
}
