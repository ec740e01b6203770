package android.util

import edgeopt.fake.FakeDevice

object Log {
    @JvmStatic
    fun i(tag: String, message: String): Int = keep("I/$tag: $message")

    @JvmStatic
    fun w(tag: String, message: String): Int = keep("W/$tag: $message")

    private fun keep(line: String): Int {
        FakeDevice.log.add(line)
        return 0
    }
}
