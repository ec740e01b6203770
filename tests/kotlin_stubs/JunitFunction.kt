package org.junit.function

fun interface ThrowingRunnable {
    fun run()
}
