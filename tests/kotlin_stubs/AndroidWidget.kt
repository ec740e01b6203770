package android.widget

import android.content.Context

class TextView(val context: Context) {
    var text: CharSequence = ""
    var keepScreenOn: Boolean = false

    fun setTextIsSelectable(selectable: Boolean) {
        check(selectable)
    }
}
