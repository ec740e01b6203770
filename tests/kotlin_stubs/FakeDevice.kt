package edgeopt.fake

import java.io.ByteArrayInputStream
import java.io.File
import java.io.FileNotFoundException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The phone that isn't there: its assets are folders, its runtimes replay golden data. */
object FakeDevice {
    var assets: List<File> = emptyList()
    var files: File = File("unset")
    var inputNames: List<String> = emptyList()
    var outputNames: List<String> = emptyList()

    /** Bytes instead of the asset of that name: a damaged install. */
    val replaced: MutableMap<String, ByteArray> = mutableMapOf()
    var gpuWorks: Boolean = true
    val log: MutableList<String> = mutableListOf()
    var openModels: Int = 0
    var threads: Int? = null
    var loadThread: Thread? = null

    /** Answer inputs that aren't golden too, with the outputs of the first sample. */
    var answersAnything: Boolean = false

    fun open(name: String): InputStream {
        replaced[name]?.let { return ByteArrayInputStream(it) }
        val file = assets.map { File(it, name) }.firstOrNull { it.isFile } ?: throw FileNotFoundException(name)
        return file.inputStream()
    }

    fun loaded(threads: Int?) {
        openModels++
        this.threads = threads
        loadThread = Thread.currentThread()
    }

    private val goldenFolder: File
        get() = assets.flatMap { it.walkTopDown().toList() }.first { it.name == "golden.txt" }.parentFile

    /** [answer] for inputs whose sizes aren't known. */
    fun answerFlat(inputs: List<FakeTensor>): List<FakeTensor> = answer(inputs) { it.flat() }

    /** The golden outputs for inputs that are golden; each tensor is its dtype, sizes and little-endian bytes. */
    fun answer(inputs: List<FakeTensor>, seen: (FakeTensor) -> FakeTensor = { it }): List<FakeTensor> {
        val rows = File(goldenFolder, "golden.txt").readLines().map { it.split(' ') }
            .filter { it[0].toIntOrNull() != null }
        for (sample in rows.groupBy { it[0] }.values) {
            val (wanted, outputs) = sample.partition { it[1] == "input" }
            if (answersAnything || wanted.map { seen(tensor(it)) } == inputs) return outputs.map(::tensor)
        }
        throw IllegalStateException("these inputs are not golden: ${inputs.map { "${it.dtype}${it.shape}" }}")
    }

    private fun tensor(row: List<String>): FakeTensor {
        val shape = if (row[4] == "-") emptyList() else row[4].split('x').map { it.toLong() }
        return FakeTensor(row[3], shape, File(goldenFolder, row[5]).readBytes())
    }
}

class FakeTensor(val dtype: String, val shape: List<Long>, val bytes: ByteArray) {
    override fun equals(other: Any?): Boolean =
        other is FakeTensor && dtype == other.dtype && shape == other.shape && bytes.contentEquals(other.bytes)

    override fun hashCode(): Int = bytes.contentHashCode()

    fun flat(): FakeTensor = FakeTensor(dtype, listOf(shape.fold(1L) { a, b -> a * b }), bytes)

    val buffer: ByteBuffer
        get() = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)

    companion object {
        fun of(dtype: String, shape: List<Long>, itemBytes: Int, fill: ByteBuffer.() -> Unit): FakeTensor {
            val count = shape.fold(1L) { a, b -> a * b }.toInt()
            val buffer = ByteBuffer.allocate(count * itemBytes).order(ByteOrder.LITTLE_ENDIAN)
            buffer.fill()
            require(!buffer.hasRemaining()) { "too few values for $dtype$shape" }
            return FakeTensor(dtype, shape, buffer.array())
        }
    }
}
