-- Whether what metadata hold by a key is JSON whose text depends on who writes it: PostgreSQL answers for such.
JSONType(metadata, {${key}:String}) not in ('String', 'Null', 'Int64', 'UInt64', 'Bool')
