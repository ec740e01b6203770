// Written by edgeopt app from the bundle's manifest; edgeopt app --update writes it anew.
import ExecuTorch
import Foundation

/// Tiny Net: fp32, made for Google Pixel 7 and executorch 1.5.1.
///
/// An actor: it loads and runs off the main thread, one run after the other.
public actor TinyNet {
    /// What the model computed, each flattened in the order of its axes.
    public struct Outputs {
        /// logits: float32[1, 3].
        public let logits: [Float]
        /// mask: int64[1, 2].
        public let mask: [Int]
    }

    private let module: Module
    private let labels: [String]

    /// Checks the model file and loads it.
    public init() throws {
        let path = try ModelFile.checked()
        module = Module(filePath: path)
        let text = try String(contentsOf: ModelFile.resource("labels.txt"), encoding: .utf8)
        labels = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
        try module.load("forward")
    }

    /// Runs the model.
    ///
    /// - Parameters:
    ///   - image: image, float32[1, 3, 8, 8], flattened.
    public func run(
        image: [Float]
    ) throws -> Outputs {
        let values_ = try self.module.forward([
            Self.tensor("image", image, [1, 3, 8, 8]),
        ])
        return Outputs(
            logits: try Self.scalars(values_, 0),
            mask: try Self.scalars(values_, 1)
        )
    }

    /// The input image from 8 x 8 pixels of four bytes (red, green, blue, alpha), row by row:
    /// (value / 255 - mean) / std with the figures that were given at export.
    public static func input(rgba: [UInt8]) throws -> [Float] {
        let mean: [Float] = [0.485, 0.456, 0.406]
        let std: [Float] = [0.229, 0.224, 0.225]
        let plane = 64
        guard rgba.count == 4 * plane else {
            throw ModelError.wrongSize(input: "rgba", found: rgba.count, wanted: 4 * plane)
        }
        var input = [Float](repeating: 0, count: mean.count * plane)
        for pixel in 0..<plane {
            let red = Float(rgba[4 * pixel]), green = Float(rgba[4 * pixel + 1]), blue = Float(rgba[4 * pixel + 2])
            for (channel, value) in [red, green, blue].enumerated() {
                input[channel * plane + pixel] = (value / 255 - mean[channel]) / std[channel]
            }
        }
        return input
    }

    /// The classes with the highest scores in the first row of logits, highest first.
    public func topClasses(_ outputs: Outputs, count: Int = 5) -> [(label: String, score: Float)] {
        zip(labels, outputs.logits)
            .sorted { $0.1 > $1.1 }
            .prefix(count)
            .map { (label: $0.0, score: $0.1) }
    }

    private static func tensor<T: Scalar>(_ name: String, _ values: [T], _ shape: [Int]) throws -> Tensor<T> {
        let wanted = shape.reduce(1, *)
        guard values.count == wanted else {
            throw ModelError.wrongSize(input: name, found: values.count, wanted: wanted)
        }
        return Tensor<T>(values, shape: shape)
    }

    private static func scalars<T: Scalar>(_ values: [Value], _ index: Int) throws -> [T] {
        guard values.indices.contains(index), let tensor: Tensor<T> = values[index].tensor() else {
            throw ModelError.wrongOutput(index: index)
        }
        return tensor.scalars()
    }
}
